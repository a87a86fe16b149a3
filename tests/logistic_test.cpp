#include "kernels/logistic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/bounded_reference.h"
#include "tests/likelihood_check.h"

namespace vae::test {
namespace {

constexpr kernels::LogBounds kBounds = {-4.0f, 2.0f};

// One pixel in double with the bounds of its float. a and b are (x − m ± h)/scale.
struct Pixel {
    Pixel(const PixelOutputs& m, double x, int levels)
        : s(m[1], kBounds.least, kBounds.most),
          h(0.5 / (levels - 1)),
          is_lowest(x < h),
          is_highest(x > 1 - h),
          inverse(std::exp(-s.value)),
          inverse_error(s.error + 4 * kEpsilon),
          a((x - m[0] + h) * inverse),
          b((x - m[0] - h) * inverse),
          width(2 * h * inverse),
          above(is_highest ? 0 : sigmoid(-a)),
          below(is_lowest ? 0 : sigmoid(b)) {
        // Of the difference, the sum with h, and the product with the inverse.
        const double distance = kEpsilon * inverse * (2 * std::abs(x - m[0]) + h);
        a_error = distance + std::abs(a) * (inverse_error + kEpsilon);
        b_error = distance + std::abs(b) * (inverse_error + kEpsilon);
    }

    BoundedReference s;
    double h;
    bool is_lowest;
    bool is_highest;
    double inverse;
    double inverse_error;  // relative
    double a;
    double b;
    double width;
    double above;  // σ(−a), none where the bin has no upper bound
    double below;  // σ(b), likewise
    double a_error = 0;
    double b_error = 0;
};

double softplus(double a) {
    return std::max(a, 0.0) + std::log1p(std::exp(-std::abs(a)));
}

PixelLoss pixel_loss(const PixelOutputs& m, double x, int levels) {
    const Pixel p(m, x, levels);
    const double of_a = p.is_highest ? 0 : softplus(-p.a);
    const double of_b = p.is_lowest ? 0 : softplus(p.b);
    const bool is_between = !p.is_lowest && !p.is_highest;
    const double of_bin = is_between ? -std::log(-std::expm1(-p.width)) : 0;
    const double magnitude = of_a + of_b + std::abs(of_bin);
    // 9 roundings of the terms and their sum; of the bin also the error of its argument, which
    // counts relatively, and 4 roundings of expm1.
    const double error = 9 * kEpsilon * magnitude + p.above * p.a_error + p.below * p.b_error +
                         (is_between ? p.inverse_error + 6 * kEpsilon : 0);
    return {of_a + of_b + of_bin, magnitude, error};
}

std::array<Bound, 2> pixel_gradients(const PixelOutputs& m, double x, int levels) {
    const Pixel p(m, x, levels);
    // d σ(a)/da times the error of a, and 8 roundings of the sigmoid itself.
    const double above_error = p.above * sigmoid(p.a) * p.a_error + 8 * kEpsilon * p.above;
    const double below_error = p.below * sigmoid(-p.b) * p.b_error + 8 * kEpsilon * p.below;
    const double d_m = p.inverse * (p.above - p.below);
    const double d_m_error =
        p.inverse * (above_error + below_error) + std::abs(d_m) * (p.inverse_error + 2 * kEpsilon);
    double of_bin = 0;
    double error = 0;
    if (!p.is_lowest && !p.is_highest) {
        of_bin = p.width / std::expm1(p.width);
        error = of_bin * ((1 + p.width) * (p.inverse_error + 2 * kEpsilon) + 6 * kEpsilon);
    }
    const double of_a = p.is_highest ? 0 : p.a * p.above;
    const double of_b = p.is_lowest ? 0 : p.b * p.below;
    error += p.above * p.a_error + std::abs(p.a) * above_error + p.below * p.b_error +
             std::abs(p.b) * below_error +
             4 * kEpsilon * (of_bin + std::abs(of_a) + std::abs(of_b));
    const double sum = of_bin + of_a - of_b;
    return {
        Bound{d_m, d_m_error},
        Bound{sum * p.s.slope, p.s.slope * (error + std::abs(sum) * (p.s.slope_error + kEpsilon))}};
}

PixelReference reference_of(int levels) {
    const auto steps = static_cast<float>(levels - 1);
    return {
        .outputs = 2,
        .loss = [=](const PixelOutputs& m, double x) { return pixel_loss(m, x, levels); },
        .gradients = [=](const PixelOutputs& m, double x) { return pixel_gradients(m, x, levels); },
        .value = [=](float u) { return std::round(u * steps) / steps; },
        .large = 40};
}

Launchers launchers_of(int levels) {
    const kernels::LogisticSettings settings = {levels, kBounds};
    return {[=](const kernels::LikelihoodInput& in, float* recon, const kernels::Scratch& scratch,
                cudaStream_t stream) {
                kernels::logistic_forward(in, settings, recon, scratch, stream);
            },
            [=](const kernels::LikelihoodInput& in, const kernels::LikelihoodGradient& gradient,
                float* recon, const kernels::Scratch& scratch, cudaStream_t stream) {
                kernels::logistic_forward_backward(in, settings, gradient, recon, scratch, stream);
            }};
}

const PixelReference kReference = reference_of(256);
const Launchers kLaunchers = launchers_of(256);

using Logistic = LikelihoodTest;

TEST_F(Logistic, EveryRaggedSize) {
    check_every_size(kLaunchers, kReference);
}

TEST_F(Logistic, LargeSizes) {
    check_large_sizes(kLaunchers, kReference);
}

TEST_F(Logistic, LaunchPaths) {
    check_launch_paths(kLaunchers, kReference);
}

TEST_F(Logistic, OtherNumbersOfLevels) {
    for (const int levels : {2, 3, 16, 65536}) {
        SCOPED_TRACE(levels);
        check(launchers_of(levels), reference_of(levels), {33, 101});
        check(launchers_of(levels), reference_of(levels), {33, 128});
    }
}

TEST_F(Logistic, UnalignedArrays) {
    check_unaligned(kLaunchers, kReference);
}

TEST_F(Logistic, SamplesAndRowWeights) {
    check_samples_and_weights(kLaunchers, kReference);
}

TEST_F(Logistic, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kLaunchers, kReference);
}

TEST_F(Logistic, NanComesThrough) {
    check_nan(kLaunchers, kReference);
}

// The masses of all levels are a distribution, for narrow and wide scales and means outside.
TEST_F(Logistic, MassesAddUpToOne) {
    constexpr int kLevels = 16;
    for (const float mean : {-3.0f, 0.0f, 0.37f, 1.0f, 2.0f}) {
        for (const float raw : {-10.0f, -2.0f, 0.0f, 10.0f}) {
            std::vector<float> product;
            std::vector<float> x;
            for (int k = 0; k < kLevels; ++k) {
                product.insert(product.end(), {mean, raw});
                x.push_back(static_cast<float>(k) / (kLevels - 1));
            }
            auto product_on_device = upload(product);
            auto bias = upload(std::vector<float>{0, 0});
            auto x_on_device = upload(x);
            auto recon = output(kLevels);
            DeviceScratch scratch(stream(), kLevels, 1, 0);
            kernels::logistic_forward(
                {product_on_device.data(), bias.data(), x_on_device.data(), kLevels, 1},
                {kLevels, kBounds}, recon.data(), scratch.get(), stream().get());
            double sum = 0;
            for (const float loss : recon.download()) sum += std::exp(-static_cast<double>(loss));
            EXPECT_NEAR(sum, 1, 1e-5) << mean << ", " << raw;  // losses of order 10, in float
        }
    }
}

// Each level's upper edge is passed with probability σ((m − edge)/scale): a few roundings of it,
// besides what the argument's error makes of it.
Bound mean_of(const PixelOutputs& m, int levels) {
    const BoundedReference s(m[1], kBounds.least, kBounds.most);
    const double inverse = std::exp(-s.value);
    const double steps = levels - 1;
    Bound mean;
    for (int k = 0; k < levels - 1; ++k) {
        const double edge = (k + 0.5) / steps;
        const double t = (m[0] - edge) * inverse;
        const double p = sigmoid(t);
        const double t_error = kEpsilon * inverse * (std::abs(m[0] - edge) + 3 * edge) +
                               std::abs(t) * (s.error + 5 * kEpsilon);
        mean.value += p / steps;
        mean.tolerance += (8 * kEpsilon * p + p * sigmoid(-t) * t_error) / steps;
    }
    mean.tolerance += kEpsilon * mean.value;
    return mean;
}

TEST_F(Logistic, MeanOfTheLevels) {
    const auto check_mean = [&](const Shape& shape, int levels, std::size_t shift) {
        SCOPED_TRACE(testing::Message() << shape << ", " << levels << " levels");
        const LikelihoodInputs in(shape, kReference);
        auto product = upload(in.product, shift);
        auto bias = upload(in.bias, shift);
        auto mean = output(shape.size(), shift);
        kernels::logistic_mean({product.data(), bias.data(), nullptr, shape.rows, shape.cols},
                               {levels, kBounds}, mean.data(), stream().get());
        expect_close(mean.download(),
                     each(shape, [&](std::size_t r,
                                     std::size_t c) { return mean_of(in.pre(r, c), levels); }),
                     "mean");
    };
    for (const Shape& shape : ragged_shapes()) check_mean(shape, 3, 0);
    for (const int levels : {2, 16, 256, 1000}) {
        check_mean({7, 33}, levels, 0);
        check_mean({7, 32}, levels, 0);
        check_mean({7, 32}, levels, 1);
    }
    auto nan = upload(std::vector<float>{kNan, 0, 0, 0, kNan, 0});
    auto bias = upload(std::vector<float>(6, 0));
    auto mean = output(3);
    kernels::logistic_mean({nan.data(), bias.data(), nullptr, 1, 3}, {4, kBounds}, mean.data(),
                           stream().get());
    const std::vector<float> got = mean.download();
    EXPECT_TRUE(std::isnan(got[0]) && std::isnan(got[1]));
    EXPECT_GT(got[2], 0);
}

TEST_F(Logistic, BadRequestsThrow) {
    check_bad_requests(kLaunchers);
    auto array = output(64);
    EXPECT_THROW(kernels::logistic_mean({array.data(), array.data(), nullptr, 8, 4}, {1, kBounds},
                                        array.data(), stream().get()),
                 std::invalid_argument);
    EXPECT_THROW(kernels::logistic_mean({array.data(), array.data(), nullptr, -1, 4}, {2, kBounds},
                                        array.data(), stream().get()),
                 std::invalid_argument);
    DeviceScratch scratch(stream(), 8, 4, 2);
    EXPECT_THROW(
        kernels::logistic_forward({array.data(), array.data(), array.data(), 8, 4}, {1, kBounds},
                                  array.data(), scratch.get(), stream().get()),
        std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
