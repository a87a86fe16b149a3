// Compiled as kernels are: products and sums become fused multiply-adds, but for intrinsics.
#include <gtest/gtest.h>

#include <cuda_runtime.h>

namespace emulation {
namespace {

// (1 + 2^-12)² − 1 − 2^-11 is 2^-24, which the rounding of the product drops.
constexpr float kFactor = 1 + 0x1p-12f;
constexpr float kSubtrahend = 1 + 0x1p-11f;

// What the compiler cannot compute itself.
volatile float factor = kFactor;
volatile float subtrahend = kSubtrahend;
volatile double wide_factor = 1 + 0x1p-27;
volatile double wide_subtrahend = 1 + 0x1p-26;

TEST(Contraction, ProductsAndSumsAreOneOperation) {
#ifdef VAE_KERNELS_CONTRACT
    const float a = factor;
    EXPECT_EQ(a * a - subtrahend, 0x1p-24f);
#else
    GTEST_SKIP() << "this build does not contract";
#endif
}

TEST(Contraction, IntrinsicsAreTwo) {
    const float a = factor;
    const double d = wide_factor;
    EXPECT_EQ(__fmul_rn(a, a) - subtrahend, 0);
    EXPECT_EQ(__fadd_rn(a * a, -subtrahend), 0);
    EXPECT_EQ(__fsub_rn(a * a, subtrahend), 0);
    EXPECT_EQ(__fmaf_rn(a, a, -subtrahend), 0x1p-24f);
    EXPECT_EQ(__dmul_rn(d, d) - wide_subtrahend, 0);
    EXPECT_EQ(__dadd_rn(d * d, -wide_subtrahend), 0);
    EXPECT_EQ(__dsub_rn(d * d, wide_subtrahend), 0);
    EXPECT_EQ(__fma_rn(d, d, -wide_subtrahend), 0x1p-54);
}

}  // namespace
}  // namespace emulation
