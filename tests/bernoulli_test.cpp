#include "kernels/bernoulli.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "tests/likelihood_check.h"

namespace vae::test {
namespace {

// The loss has an exponential and a log1p of 1 to 2 units each (up to 8 roundings), a product and
// two sums; its terms cancel when the pixel is likely, so errors are relative to the terms.
constexpr double kLossRoundings = 11;

Sum pixel_loss(double l, double x) {
    const double ramp = std::max(l, 0.0);
    const double tail = std::log1p(std::exp(-std::abs(l)));
    return {ramp - l * x + tail, ramp + std::abs(l * x) + tail};
}

Bound pixel_gradient(double l, double x) {
    const double s = sigmoid(l);
    return {s - x, kEpsilon * (8 * s + std::abs(s - x))};
}

const PixelReference kReference = {pixel_loss, pixel_gradient};

const Launchers kLaunchers = {
    [](const float* product, const float* bias, const float* x, const Shape& shape, float* recon,
       const kernels::Scratch& scratch, cudaStream_t stream) {
        kernels::bernoulli_forward(product, bias, x, shape.rows, shape.cols, recon, scratch,
                                   stream);
    },
    [](const float* product, const float* bias, const float* x, const Shape& shape, float scale,
       float* recon, float* d_product, float* d_bias, const kernels::Scratch& scratch,
       cudaStream_t stream) {
        kernels::bernoulli_forward_backward(product, bias, x, shape.rows, shape.cols, scale, recon,
                                            d_product, d_bias, scratch, stream);
    }};

using Bernoulli = LikelihoodTest;

TEST_F(Bernoulli, EveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) {
        check(kLaunchers, kReference, kLossRoundings, shape);
    }
}

TEST_F(Bernoulli, LargeSizes) {
    for (const Shape& shape : large_shapes()) {
        check(kLaunchers, kReference, kLossRoundings, shape);
    }
}

TEST_F(Bernoulli, SeveralRowsAWarpInSeveralColumnsOfTiles) {
    for (const Shape& shape : {kTwoRowsAWarp, kTwoRowsAWarpWide, kEightRowsAWarp}) {
        check(kLaunchers, kReference, kLossRoundings, shape);
    }
}

TEST_F(Bernoulli, UnalignedArrays) {
    check(kLaunchers, kReference, kLossRoundings, {33, 128}, 3);
}

TEST_F(Bernoulli, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kLaunchers, {301, 260});
    check_in_place_and_repeats(kLaunchers, {33, 101});
}

TEST_F(Bernoulli, NanComesThrough) {
    check_nan(kLaunchers);
}

// A sure and right pixel costs nothing, a sure and wrong one its logit; nothing overflows.
TEST_F(Bernoulli, ExtremeLogits) {
    auto product = upload(std::vector<float>{200, 200, -200, -200, 3e38f, -3e38f});
    auto bias = upload(std::vector<float>{0});
    auto x = upload(std::vector<float>{1, 0, 0, 1, 1, 0});
    auto recon = output(6);
    auto d_product = output(6);
    auto d_bias = output(1);
    DeviceScratch scratch(stream(), 6, 1);
    kernels::bernoulli_forward_backward(product.data(), bias.data(), x.data(), 6, 1, 1.0f,
                                        recon.data(), d_product.data(), d_bias.data(),
                                        scratch.get(), stream().get());
    EXPECT_EQ(recon.download(), (std::vector<float>{0, 200, 0, 200, 0, 0}));
    const std::vector<float> d = d_product.download();
    const float want[] = {0, 1, 0, -1, 0, 0};
    for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(d[i], want[i], 1e-37f) << i;
}

TEST_F(Bernoulli, Mean) {
    for (const Shape& shape : ragged_shapes()) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape);
        auto product = upload(in.product);
        auto bias = upload(in.bias);
        kernels::bernoulli_mean(product.data(), bias.data(), shape.rows, shape.cols, product.data(),
                                stream().get());
        // An exponential, a sum and a quotient.
        expect_close(product.download(),
                     each(shape,
                          [&](auto r, auto c) {
                              const double s = sigmoid(in.pre(r, c));
                              return Bound{s, 8 * kEpsilon * s};
                          }),
                     "mean");
    }
}

TEST_F(Bernoulli, BadRequestsThrow) {
    auto array = output(64);
    DeviceScratch scratch(stream(), 8, 8);
    const auto forward = [&](int rows, int cols, const kernels::Scratch& memory) {
        kernels::bernoulli_forward(array.data(), array.data(), array.data(), rows, cols,
                                   array.data(), memory, stream().get());
    };
    EXPECT_THROW(forward(-1, 8, scratch.get()), std::invalid_argument);
    EXPECT_THROW(forward(8, -1, scratch.get()), std::invalid_argument);
    kernels::Scratch small = scratch.get();
    --small.partials_size;
    EXPECT_THROW(forward(8, 8, small), std::invalid_argument);
    small = scratch.get();
    --small.tickets_size;
    EXPECT_THROW(forward(8, 8, small), std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
