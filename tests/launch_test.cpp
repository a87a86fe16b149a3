#include "kernels/launch.h"

#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/gaussian.h"
#include "kernels/gradient_statistics.h"
#include "kernels/optimizer.h"
#include "tests/device_memory.h"

namespace vae::test {
namespace {

constexpr int kMost = std::numeric_limits<int>::max();

class Launch : public KernelTest {};

TEST_F(Launch, CheckNamesTheCallAndTheStatus) {
    EXPECT_NO_THROW(kernels::cuda_check(cudaSuccess, "nothing"));
    try {
        kernels::cuda_check(cudaErrorInvalidValue, "the call");
        FAIL() << "did not throw";
    } catch (const kernels::CudaError& error) {
        EXPECT_EQ(error.status(), cudaErrorInvalidValue);
        EXPECT_NE(std::string(error.what()).find("the call"), std::string::npos);
        EXPECT_NE(std::string(error.what()).find("cudaErrorInvalidValue"), std::string::npos);
    }
}

void no_kernel(int) {}

// A launch that fails says which, and does not surface again in the next one.
TEST_F(Launch, FailureIsReportedOnce) {
    constexpr unsigned kTooManyThreads = 4096;
    try {
        kernels::launch("the probe", no_kernel, {dim3(1), dim3(kTooManyThreads)}, stream().get(),
                        1);
        FAIL() << "did not throw";
    } catch (const kernels::CudaError& error) {
        EXPECT_NE(error.status(), cudaSuccess);
        EXPECT_NE(std::string(error.what()).find("the probe"), std::string::npos);
    }
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    auto product = upload(std::vector<float>{1, 2});
    auto bias = upload(std::vector<float>{10, 20});
    auto mean = output(2);
    kernels::add_bias(product.data(), bias.data(), 1, 2, 2, mean.data(), stream().get());
    EXPECT_EQ(mean.download(), (std::vector<float>{11, 22}));
}

// Sizes whose product overflows an int, and grids that no GPU has, are refused before any launch.
TEST_F(Launch, RefusesWhatNoGridHolds) {
    auto array = output(4);
    float* const a = array.data();
    EXPECT_THROW(kernels::add_bias(a, a, kMost, kMost, kMost, a, stream().get()),
                 std::invalid_argument);
    kernels::ArenaTable arena;
    arena.piece_count = std::numeric_limits<unsigned>::max();
    unsigned* const word = reinterpret_cast<unsigned*>(a);
    EXPECT_THROW(
        kernels::optimizer({}, nullptr, arena, a, word, {a, a, a, a, nullptr}, stream().get()),
        std::invalid_argument);
    EXPECT_THROW(kernels::gradient_statistics(arena, a, {}, nullptr, {}, stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
