#include "kernels/gaussian.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "tests/likelihood_check.h"

namespace vae::test {
namespace {

constexpr float kSigma = 0.35f;
constexpr double kPi = 3.14159265358979323846;
// The deviation has three roundings (difference, 1/sigma, product), its square twice as many, and
// two products follow.
constexpr double kLossRoundings = 8;

Sum pixel_loss(double m, double x) {
    const double sigma = kSigma;
    const double deviation = (x - m) / sigma;
    Sum sum;
    sum.add(deviation * deviation / 2);
    sum.add(std::log(sigma));
    sum.add(std::log(2 * kPi) / 2);
    return sum;
}

Bound pixel_gradient(double m, double x) {
    const double sigma = kSigma;
    const double gradient = (m - x) / (sigma * sigma);
    return {gradient, 4 * kEpsilon * std::abs(gradient)};
}

const PixelReference kReference = {pixel_loss, pixel_gradient};

const Launchers kLaunchers = {
    [](const float* product, const float* bias, const float* x, const Shape& shape, float* recon,
       const kernels::Scratch& scratch, cudaStream_t stream) {
        kernels::gaussian_forward(product, bias, x, shape.rows, shape.cols, kSigma, recon, scratch,
                                  stream);
    },
    [](const float* product, const float* bias, const float* x, const Shape& shape, float scale,
       float* recon, float* d_product, float* d_bias, const kernels::Scratch& scratch,
       cudaStream_t stream) {
        kernels::gaussian_forward_backward(product, bias, x, shape.rows, shape.cols, kSigma, scale,
                                           recon, d_product, d_bias, scratch, stream);
    }};

using Gaussian = LikelihoodTest;

TEST_F(Gaussian, EveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) {
        check(kLaunchers, kReference, kLossRoundings, shape);
    }
}

TEST_F(Gaussian, LargeSizes) {
    for (const Shape& shape : large_shapes()) {
        check(kLaunchers, kReference, kLossRoundings, shape);
    }
}

TEST_F(Gaussian, SeveralRowsAWarpInSeveralColumnsOfTiles) {
    for (const Shape& shape : {kTwoRowsAWarp, kTwoRowsAWarpWide, kEightRowsAWarp}) {
        check(kLaunchers, kReference, kLossRoundings, shape);
    }
}

TEST_F(Gaussian, UnalignedArrays) {
    check(kLaunchers, kReference, kLossRoundings, {33, 128}, 1);
}

TEST_F(Gaussian, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kLaunchers, {301, 260});
}

TEST_F(Gaussian, NanComesThrough) {
    check_nan(kLaunchers);
}

TEST_F(Gaussian, Mean) {
    for (const Shape& shape : ragged_shapes()) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape);
        auto product = upload(in.product);
        auto bias = upload(in.bias);
        kernels::gaussian_mean(product.data(), bias.data(), shape.rows, shape.cols, product.data(),
                               stream().get());
        expect_close(product.download(),
                     each(shape,
                          [&](auto r, auto c) {
                              return Bound{in.pre(r, c), 0};
                          }),
                     "mean");
    }
}

TEST_F(Gaussian, BadRequestsThrow) {
    auto array = output(64);
    DeviceScratch scratch(stream(), 8, 8);
    const auto forward = [&](int rows, float sigma, const kernels::Scratch& memory) {
        kernels::gaussian_forward(array.data(), array.data(), array.data(), rows, 8, sigma,
                                  array.data(), memory, stream().get());
    };
    EXPECT_THROW(forward(-1, 1, scratch.get()), std::invalid_argument);
    EXPECT_THROW(forward(8, 1, {}), std::invalid_argument);
    for (const float sigma : {0.0f, -1.0f, kNan, std::numeric_limits<float>::infinity()}) {
        EXPECT_THROW(forward(8, sigma, scratch.get()), std::invalid_argument) << sigma;
    }
}

}  // namespace
}  // namespace vae::test
