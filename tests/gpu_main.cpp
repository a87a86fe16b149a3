// Runs the tests of one program on a GPU. Without one it says so and exits with the status that
// CTest counts as skipped, so that nothing that did not run is reported as passed.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <iostream>

int main(int argc, char** argv) {
    constexpr int kSkipped = 77;
    testing::InitGoogleTest(&argc, argv);
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0) {
        std::cout << "no CUDA device: " << cudaGetErrorString(status) << '\n';
        return kSkipped;
    }
    return RUN_ALL_TESTS();
}
