// Whether a program that needs a GPU can run here.
#pragma once

#include <cuda_runtime.h>

#include <iostream>

namespace vae::test {

inline constexpr int kExitSkipped = 77;  // the status that CTest counts as skipped

// 0 with a GPU; kExitSkipped where there is no GPU or no driver for one; 1 where there is one that
// does not work, which must not pass for a machine without. Says so on standard output.
inline int gpu_exit_status() {
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    switch (status) {
        case cudaSuccess:
            if (devices > 0) return 0;
            std::cout << "skipped: no CUDA device\n";
            return kExitSkipped;
        case cudaErrorNoDevice:
        case cudaErrorInsufficientDriver:
        case cudaErrorStubLibrary:
            std::cout << "skipped: " << cudaGetErrorString(status) << '\n';
            return kExitSkipped;
        default:
            std::cout << "cudaGetDeviceCount failed: " << cudaGetErrorString(status) << " ("
                      << cudaGetErrorName(status) << ")\n";
            return 1;
    }
}

}  // namespace vae::test
