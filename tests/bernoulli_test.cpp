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

PixelLoss pixel_loss(const PixelOutputs& outputs, double x) {
    const double l = outputs[0];
    const double ramp = std::max(l, 0.0);
    const double tail = std::log1p(std::exp(-std::abs(l)));
    const double magnitude = ramp + std::abs(l * x) + tail;
    return {ramp - l * x + tail, magnitude, kLossRoundings * kEpsilon * magnitude};
}

std::array<Bound, 2> pixel_gradients(const PixelOutputs& outputs, double x) {
    const double s = sigmoid(outputs[0]);
    return {Bound{s - x, kEpsilon * (8 * s + std::abs(s - x))}};
}

const PixelReference kReference = {.loss = pixel_loss, .gradients = pixel_gradients};

const Launchers kLaunchers = {kernels::bernoulli_forward, kernels::bernoulli_forward_backward};

using Bernoulli = LikelihoodTest;

TEST_F(Bernoulli, EveryRaggedSize) {
    check_every_size(kLaunchers, kReference);
}

TEST_F(Bernoulli, LargeSizes) {
    check_large_sizes(kLaunchers, kReference);
}

TEST_F(Bernoulli, LaunchPaths) {
    check_launch_paths(kLaunchers, kReference);
}

TEST_F(Bernoulli, UnalignedArrays) {
    check_unaligned(kLaunchers, kReference);
}

TEST_F(Bernoulli, SamplesAndRowWeights) {
    check_samples_and_weights(kLaunchers, kReference);
}

TEST_F(Bernoulli, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kLaunchers, kReference);
}

TEST_F(Bernoulli, NanComesThrough) {
    check_nan(kLaunchers, kReference);
}

TEST_F(Bernoulli, BadRequestsThrow) {
    check_bad_requests(kLaunchers);
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
    kernels::bernoulli_forward_backward({product.data(), bias.data(), x.data(), 6, 1},
                                        {1, nullptr, d_product.data(), d_bias.data()}, recon.data(),
                                        scratch.get(), stream().get());
    EXPECT_EQ(recon.download(), (std::vector<float>{0, 200, 0, 200, 0, 0}));
    const std::vector<float> d = d_product.download();
    const float want[] = {0, 1, 0, -1, 0, 0};
    for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(d[i], want[i], 1e-37f) << i;
}

TEST_F(Bernoulli, Mean) {
    for (const Shape& shape : ragged_shapes()) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape, kReference);
        auto product = upload(in.product);
        auto bias = upload(in.bias);
        kernels::bernoulli_mean({product.data(), bias.data(), nullptr, shape.rows, shape.cols},
                                product.data(), stream().get());
        // An exponential, a sum and a quotient.
        expect_close(product.download(),
                     each(shape,
                          [&](auto r, auto c) {
                              const double s = sigmoid(in.pre(r, c)[0]);
                              return Bound{s, 8 * kEpsilon * s};
                          }),
                     "mean");
    }
}

}  // namespace
}  // namespace vae::test
