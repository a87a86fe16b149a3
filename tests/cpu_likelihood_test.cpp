// The likelihoods of host/cpu in float against their formulas in double, row by row, at sizes
// around the vector widths, with several samples of an example and weights of rows.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <vector>

#include "host/config.h"
#include "host/cpu/bernoulli.h"
#include "host/cpu/chunks.h"
#include "host/cpu/gaussian.h"
#include "host/cpu/logistic.h"
#include "host/cpu/poisson.h"
#include "host/cpu/softmax.h"
#include "host/noise.h"

namespace vae::cpu {
namespace {

constexpr float kGuard = 12345.0F;
const float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t kRows = 2 * kChunkRows - 4;  // a whole chunk and a ragged one
constexpr double kScale = .25;
// Of numbers of order one: a few roundings and the 4 ulp of the vector functions.
constexpr double kUlps = 1e-6;

std::vector<float> random_array(std::size_t size, std::uint32_t which, float scale = 1) {
    std::vector<float> values(size);
    fill_normal({3, Purpose::synthetic_data, 0, which, 0}, std::span(values));
    for (float& value : values) value *= scale;
    return values;
}

// To be overwritten, with a guard behind it.
std::vector<float> poisoned(std::size_t size) {
    std::vector<float> values(size, kNan);
    values.push_back(kGuard);
    return values;
}

// What a likelihood is for one pixel with so many outputs, in double.
struct Reference {
    std::size_t outputs = 1;
    std::function<double(const double* m, double x)> loss;
    std::function<double(float u)> value;  // from a uniform to the support
};

struct Functions {
    std::function<void(const LikelihoodInput<float>&, float*)> forward;
    std::function<void(const LikelihoodInput<float>&, const LikelihoodGradient<float>&, float*)>
        forward_backward;
};

struct Size {
    std::size_t pixels;
    std::size_t samples;
};

class CpuLikelihood : public testing::TestWithParam<Size> {
  protected:
    void check(const Functions& functions, const Reference& reference);
};

void CpuLikelihood::check(const Functions& functions, const Reference& reference) {
    const auto [pixels, samples] = GetParam();
    const std::size_t outputs = pixels * reference.outputs;
    const auto product = random_array(kRows * outputs, 1, 2);
    const auto bias = random_array(outputs, 2);
    std::vector<float> x(kRows / samples * pixels);
    std::vector<float> weights(kRows);
    fill_uniform({4, Purpose::synthetic_data, 0, 0, 0}, x);
    fill_uniform({4, Purpose::synthetic_data, 0, 1, 0}, weights);
    for (float& value : x) value = static_cast<float>(reference.value(value));
    auto only = poisoned(kRows);
    auto recon = poisoned(kRows);
    auto d_product = product;  // in place
    d_product.push_back(kGuard);
    auto d_bias = poisoned(outputs);
    auto partials = poisoned(chunk_count(kRows) * outputs);
    functions.forward({product.data(), bias.data(), x.data(), kRows, pixels, samples}, only.data());
    functions.forward_backward(
        {d_product.data(), bias.data(), x.data(), kRows, pixels, samples},
        {kScale, weights.data(), d_product.data(), d_bias.data(), partials.data()}, recon.data());
    for (const auto* array : {&only, &recon, &d_product, &d_bias, &partials}) {
        EXPECT_EQ(array->back(), kGuard);
    }
    std::vector<double> sums(outputs, 0.0);
    for (std::size_t r = 0; r < kRows; ++r) {
        double expected = 0;
        double magnitude = 1;
        for (std::size_t c = 0; c < pixels; ++c) {
            std::vector<double> m;
            for (std::size_t k = 0; k < reference.outputs; ++k) {
                const std::size_t column = k * pixels + c;
                m.push_back(static_cast<double>(product[r * outputs + column] + bias[column]));
            }
            const auto value = static_cast<double>(x[r / samples * pixels + c]);
            const double loss = reference.loss(m.data(), value);
            expected += loss;
            magnitude += std::abs(loss);
            for (std::size_t k = 0; k < reference.outputs; ++k) {
                const std::size_t column = k * pixels + c;
                // A central difference in double: h² = 1e-10, 1e-16/h = 1e-11, of the loss.
                const auto at = [&](double step) {
                    std::vector<double> moved = m;
                    moved[k] += step;
                    return reference.loss(moved.data(), value);
                };
                const double slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                const double wanted = kScale * static_cast<double>(weights[r]) * slope;
                const auto d = static_cast<double>(d_product[r * outputs + column]);
                EXPECT_NEAR(d, wanted, kUlps * (1 + std::abs(wanted) + 1e-3 * std::abs(loss)));
                sums[column] += d;
            }
        }
        EXPECT_NEAR(static_cast<double>(recon[r]), expected, kUlps * magnitude) << r;
        EXPECT_NEAR(static_cast<double>(only[r]), expected, kUlps * magnitude) << r;
    }
    for (std::size_t c = 0; c < outputs; ++c) {
        EXPECT_NEAR(static_cast<double>(d_bias[c]), sums[c], kUlps * (kRows + std::abs(sums[c])));
    }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CpuLikelihood,
                         testing::Values(Size{0, 1}, Size{1, 1}, Size{7, 1}, Size{8, 1}, Size{9, 1},
                                         Size{15, 1}, Size{16, 1}, Size{17, 1}, Size{31, 1},
                                         Size{33, 1}, Size{513, 1}, Size{1, 2}, Size{33, 3},
                                         Size{16, 12}));

TEST_P(CpuLikelihood, Bernoulli) {
    check({bernoulli_forward<float>, bernoulli_forward_backward<float>},
          {.loss =
               [](const double* m, double x) {
                   const double p = 1 / (1 + std::exp(-m[0]));
                   return -x * std::log(p) - (1 - x) * std::log1p(-p);
               },
           .value = [](float u) { return u; }});
}

TEST_P(CpuLikelihood, GaussianWithFixedSigma) {
    constexpr double kSigma = .6;
    check({[](const auto& in, float* recon) { gaussian_forward(in, kSigma * kSigma, recon); },
           [](const auto& in, const auto& gradient, float* recon) {
               gaussian_forward_backward(in, kSigma * kSigma, gradient, recon,
                                         static_cast<float*>(nullptr));
           }},
          {.loss =
               [](const double* m, double x) {
                   const double density =
                       std::exp(-(x - m[0]) * (x - m[0]) / (2 * kSigma * kSigma)) /
                       (kSigma * std::sqrt(2 * std::numbers::pi));
                   return -std::log(density);
               },
           .value = [](float u) { return 2 * u - 1; }});
}

// Both kinds of learned variance are bounded so.
double logvar_of(double raw, double least, double most) {
    const auto softplus = [](double a) { return a > 30 ? a : std::log1p(std::exp(a)); };
    return least + softplus(most - softplus(most - raw) - least);
}

constexpr double kLeast = -2.5;
constexpr double kMost = 3;

TEST_P(CpuLikelihood, GaussianWithAVarianceOfEachPixel) {
    check({[](const auto& in, float* recon) { gaussian_pixel_forward(in, kLeast, kMost, recon); },
           [](const auto& in, const auto& gradient, float* recon) {
               gaussian_pixel_forward_backward(in, kLeast, kMost, gradient, recon);
           }},
          {.outputs = 2,
           .loss =
               [](const double* m, double x) {
                   const double variance = std::exp(logvar_of(m[1], kLeast, kMost));
                   return (x - m[0]) * (x - m[0]) / (2 * variance) +
                          std::log(2 * std::numbers::pi * variance) / 2;
               },
           .value = [](float u) { return 2 * u - 1; }});
}

TEST_P(CpuLikelihood, Logistic) {
    for (const std::uint32_t levels : {2U, 5U, 256U}) {
        const double steps = levels - 1;
        const LogisticSettings settings{levels, kLeast, kMost};
        // Differences of the distribution function, on the side where it is small.
        const auto cdf = [](double a) { return 1 / (1 + std::exp(-a)); };
        check({[=](const auto& in, float* recon) { logistic_forward(in, settings, recon); },
               [=](const auto& in, const auto& gradient, float* recon) {
                   logistic_forward_backward(in, settings, gradient, recon);
               }},
              {.outputs = 2,
               .loss =
                   [=](const double* m, double x) {
                       const double scale = std::exp(logvar_of(m[1], kLeast, kMost));
                       const double sign = x > m[0] ? -1 : 1;  // cdf is then small
                       const double upper = x == 1 ? sign * 1e30 : sign * (x - m[0] + .5 / steps);
                       const double lower = x == 0 ? sign * -1e30 : sign * (x - m[0] - .5 / steps);
                       return -std::log(std::abs(cdf(upper / scale) - cdf(lower / scale)));
                   },
               .value = [=](float u) { return std::round(u * steps) / steps; }});
    }
}

TEST_P(CpuLikelihood, Poisson) {
    check({poisson_forward<float>, poisson_forward_backward<float>},
          {.loss = [](const double* m,
                      double x) { return std::exp(m[0]) - x * m[0] + std::lgamma(x + 1); },
           .value = [](float u) { return std::floor(9 * u); }});
}

// The levels weighted with their masses, which are exp(−recon).
TEST_P(CpuLikelihood, MeanOfTheLogistic) {
    const std::size_t pixels = GetParam().pixels;
    for (const std::uint32_t levels : {2U, 5U, 256U}) {
        const LogisticSettings settings{levels, kLeast, kMost};
        const auto product = random_array(kRows * 2 * pixels, 1, 2);
        const auto bias = random_array(2 * pixels, 2);
        auto mean = poisoned(kRows * pixels);
        logistic_mean({product.data(), bias.data(), nullptr, kRows, pixels}, settings, mean.data());
        EXPECT_EQ(mean.back(), kGuard);
        for (std::size_t i = 0; i < kRows * pixels; ++i) {
            const std::size_t m = i / pixels * 2 * pixels + i % pixels;
            const double outputs[2] = {
                static_cast<double>(product[m] + bias[i % pixels]),
                static_cast<double>(product[m + pixels] + bias[i % pixels + pixels])};
            const double none[2] = {0, 0};
            double expected = 0;
            for (std::uint32_t k = 0; k < levels; ++k) {
                const double x = k / (levels - 1.0);
                double recon = 0;
                logistic_forward<double>({outputs, none, &x, 1, 1}, settings, &recon);
                expected += x * std::exp(-recon);
            }
            // One after the other, as loops that are not vectorised add, each of the sums over the
            // levels is rounded.
            ASSERT_NEAR(static_cast<double>(mean[i]), expected, kUlps + levels * 0x1p-24) << i;
        }
    }
}

TEST(CpuLogCounts, AreLogarithmsToTheBase256) {
    for (const std::size_t cols : {0U, 1U, 7U, 8U, 33U}) {
        std::vector<float> x;
        for (std::size_t i = 0; i < 3 * cols; ++i) x.push_back(static_cast<float>(i * i * i));
        auto out = poisoned(x.size());
        log_counts(x.data(), 3, cols, out.data());
        EXPECT_EQ(out.back(), kGuard);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double expected = std::log(1 + static_cast<double>(x[i])) / std::log(256.0);
            EXPECT_NEAR(static_cast<double>(out[i]), expected, kUlps * expected);
        }
    }
    const float nan = kNan;
    float out = 0;
    log_counts(&nan, 1, 1, &out);
    EXPECT_TRUE(std::isnan(out));
}

// With the default sigma, whose square is ½, the squared error and a constant are all there is.
TEST(CpuGaussian, TheDefaultSigmaMakesReconTheSquaredError) {
    const double sigma = ModelConfig().sigma;
    constexpr std::size_t kPixels = 37;
    const auto mean = random_array(kPixels, 1);
    const auto x = random_array(kPixels, 2);
    const std::vector<double> product(mean.begin(), mean.end());
    const std::vector<double> data(x.begin(), x.end());
    const std::vector<double> bias(kPixels, 0.0);
    double expected = kPixels / 2.0 * std::log(std::numbers::pi);
    for (std::size_t c = 0; c < kPixels; ++c) {
        expected += (product[c] - data[c]) * (product[c] - data[c]);
    }
    double recon = 0;
    gaussian_forward<double>({product.data(), bias.data(), data.data(), 1, kPixels}, sigma * sigma,
                             &recon);
    EXPECT_NEAR(recon, expected, 1e-13 * expected);
}

// The float form has none of the large terms of the definition: relative to the loss itself.
TEST(CpuLikelihoodOfLargeCounts, PoissonKeepsItsDigits) {
    const std::vector<float> x = {0, 1, 2, 3, 4, 5, 20, 255, 1e4F, 1e6F};
    const std::vector<float> bias(x.size(), 0.0F);
    std::vector<float> log_rate(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) log_rate[i] = std::log(x[i] + 1.5F);
    for (std::size_t i = 0; i < x.size(); ++i) {
        float recon = kNan;
        poisson_forward({&log_rate[i], &bias[i], &x[i], 1, 1}, &recon);
        const auto count = static_cast<double>(x[i]);
        const auto l = static_cast<double>(log_rate[i]);
        const double expected = std::exp(l) - count * l + std::lgamma(count + 1);
        // lgamma of 1e6 has an error of 1e-9; the float form 1e-6 of the value and, by its
        // argument's rounding, |rate − count|·2^-24·l.
        EXPECT_NEAR(recon, expected, 1e-6 * expected + 1e-5) << x[i];
    }
}

}  // namespace
}  // namespace vae::cpu
