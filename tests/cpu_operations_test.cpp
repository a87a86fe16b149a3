// The operations of host/cpu one by one, float against the formulas in double, at sizes around the
// vector widths and at values where naive formulas overflow.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "host/cpu/activation.h"
#include "host/cpu/bernoulli.h"
#include "host/cpu/chunks.h"
#include "host/cpu/gated.h"
#include "host/cpu/gather.h"
#include "host/cpu/gaussian.h"
#include "host/cpu/matmul.h"
#include "host/noise.h"

namespace vae::cpu {
namespace {

constexpr float kGuard = 12345.0F;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

// Normals, with one guard element behind them.
std::vector<float> random_array(std::size_t size, std::uint32_t which, float scale = 1) {
    std::vector<float> values(size + 1, kGuard);
    fill_normal({3, Purpose::synthetic_data, 0, which, 0}, std::span(values).first(size));
    for (std::size_t i = 0; i < size; ++i) values[i] *= scale;
    return values;
}

// To be overwritten.
std::vector<float> poisoned(std::size_t size) {
    std::vector<float> values(size, kNan);
    values.push_back(kGuard);
    return values;
}

double value_of(Activation f, double a) {
    switch (f) {
        case Activation::relu:
            return a > 0 ? a : 0;
        case Activation::tanh:
            return std::tanh(a);
        case Activation::softplus:
            return a > 30 ? a : std::log1p(std::exp(a));
        case Activation::gelu:
            return a * std::erfc(-a / std::sqrt(2.0)) / 2;
        case Activation::silu:
            return a / (1 + std::exp(-a));
        case Activation::gated:
            break;  // of two numbers
    }
    return std::nan("");
}

constexpr Activation kActivations[] = {Activation::relu, Activation::tanh, Activation::softplus,
                                       Activation::gelu, Activation::silu};

class Sizes : public testing::TestWithParam<std::size_t> {};

INSTANTIATE_TEST_SUITE_P(Cols, Sizes, testing::Values(0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 513));

constexpr std::size_t kRows = kChunkRows + 3;  // a whole chunk and a ragged one

// Of numbers of order one: a few roundings and the 4 ulp of the vector functions.
constexpr double kUlps = 1e-6;

TEST_P(Sizes, ActivationsForwardAndBackward) {
    const std::size_t cols = GetParam();
    const auto product = random_array(kRows * cols, 1, 3);
    const auto bias = random_array(cols, 2);
    const auto d_h = random_array(kRows * cols, 3);
    for (const Activation f : kActivations) {
        auto h = poisoned(kRows * cols);
        auto d_pre = poisoned(kRows * cols);
        auto d_bias = poisoned(cols);
        auto partials = poisoned(chunk_count(kRows) * cols);
        bias_activation_forward(f, product.data(), bias.data(), kRows, cols, h.data());
        bias_activation_backward(f, product.data(), bias.data(), d_h.data(), kRows, cols,
                                 d_pre.data(), d_bias.data(), partials.data());
        for (const auto* array : {&h, &d_pre, &d_bias, &partials}) EXPECT_EQ(array->back(), kGuard);
        for (std::size_t c = 0; c < cols; ++c) {
            double sum = 0;
            for (std::size_t r = 0; r < kRows; ++r) {
                const std::size_t at = r * cols + c;
                const double a = static_cast<double>(product[at] + bias[c]);
                // A central difference of the formula: h² = 1e-10, 1e-16/h = 1e-11.
                const double slope = (value_of(f, a + 1e-5) - value_of(f, a - 1e-5)) / 2e-5;
                const double d = static_cast<double>(d_h[at]) * slope;
                EXPECT_NEAR(static_cast<double>(h[at]), value_of(f, a), kUlps * (1 + std::abs(a)));
                EXPECT_NEAR(static_cast<double>(d_pre[at]), d, kUlps * (1 + std::abs(d)));
                sum += static_cast<double>(d_pre[at]);
            }
            EXPECT_NEAR(static_cast<double>(d_bias[c]), sum, kUlps * kRows);
        }
    }
}

TEST_P(Sizes, GatedForwardAndBackward) {
    const std::size_t cols = GetParam();
    const std::size_t stride = (cols + 7) / 8 * 8;
    const std::size_t width = 2 * stride;
    auto product = random_array(kRows * width, 1, 3);
    const auto bias = random_array(cols, 2);
    const auto gate_bias = random_array(cols, 3);
    const auto d_h = random_array(kRows * cols, 4);
    const auto value = [&](std::size_t r, std::size_t c, double da, double dg) {
        const auto a = static_cast<double>(product[r * width + c] + bias[c]) + da;
        const auto g = static_cast<double>(product[r * width + stride + c] + gate_bias[c]) + dg;
        return a / (1 + std::exp(-g));
    };
    auto h = poisoned(kRows * cols);
    auto d_product = poisoned(kRows * width);
    auto d_bias = poisoned(cols);
    auto d_gate_bias = poisoned(cols);
    auto partials = poisoned(chunk_count(kRows) * width);
    const GatedView<float> layer{product.data(), bias.data(), gate_bias.data(),
                                 kRows,          cols,        stride};
    gated_forward(layer, h.data());
    gated_backward(layer, d_h.data(), d_product.data(), d_bias.data(), d_gate_bias.data(),
                   partials.data());
    std::vector<double> sums(width, 0.0);
    for (std::size_t r = 0; r < kRows; ++r) {
        for (std::size_t c = 0; c < cols; ++c) {
            const double want = value(r, c, 0, 0);
            EXPECT_NEAR(static_cast<double>(h[r * cols + c]), want, kUlps * (1 + std::abs(want)));
            const auto d = static_cast<double>(d_h[r * cols + c]);
            // Central differences of the formula: h² = 1e-10, 1e-16/h = 1e-11.
            const double d_a = d * (value(r, c, 1e-5, 0) - value(r, c, -1e-5, 0)) / 2e-5;
            const double d_g = d * (value(r, c, 0, 1e-5) - value(r, c, 0, -1e-5)) / 2e-5;
            const auto got_a = static_cast<double>(d_product[r * width + c]);
            const auto got_g = static_cast<double>(d_product[r * width + stride + c]);
            EXPECT_NEAR(got_a, d_a, kUlps * (1 + std::abs(d_a)));
            EXPECT_NEAR(got_g, d_g, kUlps * (1 + std::abs(d_g)));
            sums[c] += got_a;
            sums[stride + c] += got_g;
        }
        for (std::size_t c = cols; c < stride; ++c) {
            EXPECT_EQ(d_product[r * width + c], 0.0F);
            EXPECT_EQ(d_product[r * width + stride + c], 0.0F);
        }
    }
    for (std::size_t c = 0; c < cols; ++c) {
        EXPECT_NEAR(static_cast<double>(d_bias[c]), sums[c], kUlps * kRows);
        EXPECT_NEAR(static_cast<double>(d_gate_bias[c]), sums[stride + c], kUlps * kRows);
    }
    const auto apart = d_product;
    gated_backward(layer, d_h.data(), product.data(), d_bias.data(), d_gate_bias.data(),
                   partials.data());
    EXPECT_EQ(product, apart);
    for (const auto* array : {&h, &d_product, &d_bias, &d_gate_bias, &partials}) {
        EXPECT_EQ(array->back(), kGuard);
    }
}

TEST_P(Sizes, DoubleProductsAreSumsInOrder) {
    const std::size_t n = GetParam();
    constexpr std::size_t m = 13;
    constexpr std::size_t k = 21;
    std::vector<double> a(m * k);
    std::vector<double> b(k * n);
    fill_normal({5, Purpose::synthetic_data, 0, 0, 0}, std::span(a));
    fill_normal({5, Purpose::synthetic_data, 0, 1, 0}, std::span(b));
    std::vector<double> a_transposed(a.size());
    std::vector<double> b_transposed(b.size());
    for (std::size_t l = 0; l < k; ++l) {
        for (std::size_t i = 0; i < m; ++i) a_transposed[l * m + i] = a[i * k + l];
        for (std::size_t j = 0; j < n; ++j) b_transposed[j * k + l] = b[l * n + j];
    }
    std::vector<double> expected(m * n, 0.0);
    for (std::size_t i = 0; i < m; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            for (std::size_t l = 0; l < k; ++l) expected[i * n + j] += a[i * k + l] * b[l * n + j];
        }
    }
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<double> c(m * n, nan);
    matmul_nn(a.data(), b.data(), m, n, k, c.data());
    EXPECT_EQ(c, expected);  // to the bit: the same operations in the same order
    c.assign(m * n, nan);
    matmul_nt(a.data(), b_transposed.data(), m, n, k, c.data());
    EXPECT_EQ(c, expected);
    c.assign(m * n, nan);
    matmul_tn(a_transposed.data(), b.data(), m, n, k, c.data());
    EXPECT_EQ(c, expected);
}

TEST(CpuOperations, ExtremeInputsGiveTheLimitsAndNanStaysNan) {
    const std::vector<float> extremes = {-1e30F, -1e4F, -100, -30, 0, 30, 100, 1e4F, 1e30F};
    std::vector<float> product = extremes;
    product.push_back(kNan);
    const std::size_t cols = product.size();
    const std::vector<float> bias(cols, 0.0F);
    const std::vector<float> ones(cols, 1.0F);
    for (const Activation f : kActivations) {
        std::vector<float> h(cols);
        std::vector<float> slope(cols);
        std::vector<float> d_bias(cols);
        std::vector<float> partials(cols);
        bias_activation_forward(f, product.data(), bias.data(), 1, cols, h.data());
        bias_activation_backward(f, product.data(), bias.data(), ones.data(), 1, cols, slope.data(),
                                 d_bias.data(), partials.data());
        for (std::size_t i = 0; i < extremes.size(); ++i) {
            const float a = extremes[i];
            if (a == 0) continue;
            const float limit = f == Activation::tanh ? (a < 0 ? -1.0F : 1.0F) : (a < 0 ? 0.0F : a);
            // 1e-12: what softplus, gelu and silu still are at −30.
            EXPECT_NEAR(h[i], limit, 1e-11F) << a;
            EXPECT_NEAR(slope[i], f == Activation::tanh || a < 0 ? 0.0F : 1.0F, 1e-11F) << a;
        }
        EXPECT_TRUE(std::isnan(h.back()));
        EXPECT_TRUE(std::isnan(slope.back()));
        EXPECT_TRUE(std::isnan(d_bias.back()));
    }
}

// Φ(−10) = 7.619853024160527e-24, which (1 + erf) / 2 would make 0. The argument's rounding is
// multiplied by 10² and by the functions' few units in the last place.
template <class T>
void expect_gelu_keeps_its_tail(double tolerance) {
    constexpr double kTail = 7.619853024160527e-24;
    const std::vector<T> product(33, T(-10));
    const std::vector<T> bias(33, T(0));
    std::vector<T> h(33);
    bias_activation_forward(Activation::gelu, product.data(), bias.data(), 1, 33, h.data());
    for (const T value : h) {
        EXPECT_NEAR(static_cast<double>(value) / (-10 * kTail), 1, tolerance);
    }
}

TEST(CpuOperations, GeluKeepsItsTail) {
    expect_gelu_keeps_its_tail<double>(1e-13);
    expect_gelu_keeps_its_tail<float>(5e-5);
}

template <class T>
void expect_gather_keeps_nan() {
    Dataset data;
    data.shape.width = 33;
    data.size = 1;
    std::vector<float> pixels(33, 1.0F);
    pixels[5] = kNan;
    pixels[6] = 0;
    pixels[32] = kNan;
    data.values = pixels;
    const std::vector<std::uint32_t> rows = {0};
    std::vector<float> uniforms(33);
    for (const bool binary : {false, true}) {
        std::vector<T> x(33);
        if (binary) {
            gather_binary(data, rows, {3, Purpose::dynamic_binarization, 0, 0, 0}, uniforms.data(),
                          x.data());
        } else {
            gather(data, rows, x.data());
        }
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (std::isnan(pixels[i])) {
                EXPECT_TRUE(std::isnan(x[i])) << i;
            } else {
                EXPECT_EQ(x[i], static_cast<T>(pixels[i])) << i;
            }
        }
    }
}

TEST(CpuOperations, GatherKeepsNan) {
    expect_gather_keeps_nan<float>();
    expect_gather_keeps_nan<double>();
}

TEST(CpuOperations, ReluHasNoSlopeAtZero) {
    const std::vector<float> zero = {0.0F};
    const std::vector<float> one = {1.0F};
    std::vector<float> d(1);
    std::vector<float> d_bias(1);
    std::vector<float> partials(1);
    bias_activation_backward(Activation::relu, zero.data(), zero.data(), one.data(), 1, 1, d.data(),
                             d_bias.data(), partials.data());
    EXPECT_EQ(d[0], 0.0F);
}

TEST(CpuOperations, BernoulliOfCertainLogitsIsFinite) {
    const std::vector<float> product = {1e4F, 1e4F, -1e4F, -1e4F};
    const std::vector<float> x = {1, 0, 1, 0};
    const std::vector<float> bias = {0};
    std::vector<float> recon(4);
    std::vector<float> mean(4);
    bernoulli_forward({product.data(), bias.data(), x.data(), 4, 1}, recon.data());
    bernoulli_mean({product.data(), bias.data(), x.data(), 4, 1}, mean.data());
    EXPECT_EQ(recon, (std::vector<float>{0, 1e4F, 1e4F, 0}));
    EXPECT_EQ(mean, (std::vector<float>{1, 1, 0, 0}));
}

TEST(CpuOperations, InfinityIsNotHidden) {
    const std::vector<float> product = {kInfinity};
    const std::vector<float> x = {.5F};
    const std::vector<float> bias = {0};
    std::vector<float> recon(1);
    bernoulli_forward({product.data(), bias.data(), x.data(), 1, 1}, recon.data());
    EXPECT_FALSE(std::isfinite(recon[0]));
    gaussian_forward({product.data(), bias.data(), x.data(), 1, 1}, 1.0, recon.data());
    EXPECT_EQ(recon[0], kInfinity);
}

}  // namespace
}  // namespace vae::cpu
