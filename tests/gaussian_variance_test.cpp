#include "kernels/gaussian_variance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "tests/bounded_reference.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::GaussianVariance;

constexpr double kLeast = -9.2;
constexpr double kMost = 4.6;
constexpr double kDouble = 1e-13;  // some roundings of double, of numbers of order 10
constexpr int kSizes[] = {1, 31, 32, 33, 511, 512, 513, 1031, 5003};

class GaussianVarianceTest : public KernelTest {
  protected:
    GaussianVariance bounded(float parameter) {
        auto raw = upload(std::vector<float>{parameter});
        auto variance = upload(std::vector<GaussianVariance>{kPoison});
        kernels::gaussian_bounded_variance(raw.data(), kLeast, kMost, variance.data(),
                                           stream().get());
        return variance.download()[0];
    }

    GaussianVariance optimal(const std::vector<float>& squares, int pixels, float parameter) {
        auto on_device = upload(squares);
        auto raw = upload(std::vector<float>{parameter});
        auto variance = upload(std::vector<GaussianVariance>{kPoison});
        kernels::gaussian_optimal_variance(on_device.data(), static_cast<int>(squares.size()),
                                           pixels, kLeast, raw.data(), variance.data(),
                                           stream().get());
        return variance.download()[0];
    }

    float averaged(const GaussianVariance& state, double decay, unsigned is_taken = 1) {
        auto variance = upload(std::vector<GaussianVariance>{state});
        auto taken = upload(std::vector<unsigned>{is_taken});
        auto parameter = upload(std::vector<float>{-7});
        auto ema = upload(std::vector<float>{-5});
        kernels::gaussian_average_variance(variance.data(), decay, taken.data(), parameter.data(),
                                           0.75, ema.data(), stream().get());
        const float next = parameter.download()[0];
        // −5 has 0.25 of the parameter, −7, where it is to have that much of what replaces it.
        EXPECT_NEAR(ema.download()[0], -5 + 0.25 * (next + 7), 4 * kEpsilon * 5);
        return next;
    }

    static constexpr double kNanDouble = std::numeric_limits<double>::quiet_NaN();
    static constexpr GaussianVariance kPoison = {kNanDouble, kNanDouble, kNanDouble, kNanDouble};
};

TEST_F(GaussianVarianceTest, BoundedFromAnyParameter) {
    for (const float raw : {-1e30f, -50.0f, -9.2f, -1.0f, 0.0f, 4.6f, 50.0f, 1e30f}) {
        const BoundedReference want(raw, kLeast, kMost);
        const GaussianVariance got = bounded(raw);
        EXPECT_NEAR(got.logvar, want.value, kDouble) << raw;
        EXPECT_NEAR(got.precision * std::exp(want.value), 1, kDouble) << raw;
        EXPECT_NEAR(got.slope, want.slope, kDouble) << raw;
        EXPECT_GE(got.logvar, kLeast) << raw;
        EXPECT_LE(got.logvar, kMost + 1e-5) << raw;  // most + log(1 + e^(least − most))
    }
    EXPECT_TRUE(std::isnan(bounded(kNan).logvar));
}

TEST_F(GaussianVarianceTest, ExactIsTheParameterItself) {
    auto parameter = upload(std::vector<float>{-1.25f});
    auto variance = upload(std::vector<GaussianVariance>{kPoison});
    kernels::gaussian_exact_variance(parameter.data(), variance.data(), stream().get());
    const GaussianVariance got = variance.download()[0];
    EXPECT_EQ(got.logvar, -1.25);
    EXPECT_NEAR(got.precision, std::exp(1.25), kDouble);
}

TEST_F(GaussianVarianceTest, OptimalIsTheMeanSquaredError) {
    for (const int rows : kSizes) {
        const auto squares = random_uniforms(static_cast<std::size_t>(rows), 1);
        double sum = 0;
        for (const float value : squares) sum += value;
        const GaussianVariance got = optimal(squares, 7, 0.5f);
        EXPECT_NEAR(got.logvar, std::log(sum / (7.0 * rows)), kDouble) << rows;
        EXPECT_NEAR(got.precision * sum / (7.0 * rows), 1, kDouble) << rows;
        EXPECT_EQ(got.slope, 0);
        EXPECT_EQ(got.average, 0.5);
    }
}

TEST_F(GaussianVarianceTest, OptimalIsFlooredAndLetsNanPass) {
    EXPECT_EQ(optimal({0, 0, 0}, 4, 0).logvar, kLeast);
    EXPECT_EQ(optimal({1e-20f, 0, 0}, 4, 0).logvar, kLeast);
    EXPECT_TRUE(std::isnan(optimal({1, kNan, 1}, 4, 0).logvar));
}

TEST_F(GaussianVarianceTest, GradientOfWeightedRows) {
    constexpr float kScale = 0.37f;
    const GaussianVariance variance = {-0.5, std::exp(0.5), 0.8, 0};
    for (const int rows : kSizes) {
        for (const bool is_weighted : {false, true}) {
            const auto size = static_cast<std::size_t>(rows);
            const auto squares = random_uniforms(size, 1);
            const auto weights = random_uniforms(size, 2);
            auto squares_on_device = upload(squares);
            auto weights_on_device = upload(weights);
            auto on_device = upload(std::vector<GaussianVariance>{variance});
            auto gradient = output(1);
            kernels::gaussian_variance_gradient(
                squares_on_device.data(), is_weighted ? weights_on_device.data() : nullptr, rows, 3,
                kScale, on_device.data(), gradient.data(), stream().get());
            double sum = 0;
            for (std::size_t r = 0; r < size; ++r) {
                const double weight = is_weighted ? weights[r] : 1;
                sum += weight * (3 - squares[r] * variance.precision) / 2;
            }
            const double want = 0.8 * static_cast<double>(kScale) * sum;
            EXPECT_NEAR(gradient.download()[0], want, kEpsilon * std::abs(want)) << rows;
        }
    }
}

TEST_F(GaussianVarianceTest, GradientOfNoRowsIsZeroAndLetsNanPass) {
    auto variance = upload(std::vector<GaussianVariance>{{0, 1, 1, 0}});
    auto gradient = output(1);
    kernels::gaussian_variance_gradient(nullptr, nullptr, 0, 3, 1, variance.data(), gradient.data(),
                                        stream().get());
    EXPECT_EQ(gradient.download()[0], 0);
    auto squares = upload(std::vector<float>{1, kNan});
    kernels::gaussian_variance_gradient(squares.data(), nullptr, 2, 3, 1, variance.data(),
                                        gradient.data(), stream().get());
    EXPECT_TRUE(std::isnan(gradient.download()[0]));
}

TEST_F(GaussianVarianceTest, AverageOfVariances) {
    const GaussianVariance state = {std::log(2.0), 0.5, 0, std::log(3.0)};
    const double want = std::log(0.99 * 3 + 0.01 * 2);
    EXPECT_NEAR(averaged(state, 0.99), want, kEpsilon * want);
    // Zero is the average of no batch.
    EXPECT_NEAR(averaged({std::log(2.0), 0.5, 0, 0}, 0.99), std::log(2.0), kEpsilon);
    EXPECT_EQ(averaged({kNanDouble, 1, 0, 1.5}, 0.99), 1.5f);  // a step that went wrong
    EXPECT_EQ(averaged(state, 0.99, 0), -7);                   // one that was not taken
}

TEST_F(GaussianVarianceTest, BadRequestsThrow) {
    auto array = output(4);
    auto variance = upload(std::vector<GaussianVariance>{{}});
    const auto optimal_of = [&](int rows, int pixels) {
        kernels::gaussian_optimal_variance(array.data(), rows, pixels, 0, array.data(),
                                           variance.data(), stream().get());
    };
    EXPECT_THROW(optimal_of(0, 1), std::invalid_argument);
    EXPECT_THROW(optimal_of(1, 0), std::invalid_argument);
    EXPECT_THROW(
        kernels::gaussian_bounded_variance(array.data(), 1, 1, variance.data(), stream().get()),
        std::invalid_argument);
    EXPECT_THROW(kernels::gaussian_average_variance(variance.data(), 1, nullptr, array.data(), 0,
                                                    nullptr, stream().get()),
                 std::invalid_argument);
    EXPECT_THROW(kernels::gaussian_variance_gradient(array.data(), nullptr, -1, 1, 1,
                                                     variance.data(), array.data(), stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
