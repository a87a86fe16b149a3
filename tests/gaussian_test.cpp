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

Sum pixel_loss(const PixelOutputs& outputs, double x) {
    const double sigma = kSigma;
    const double deviation = (x - outputs[0]) / sigma;
    Sum sum;
    sum.add(deviation * deviation / 2);
    sum.add(std::log(sigma));
    sum.add(std::log(2 * kPi) / 2);
    return sum;
}

std::array<Bound, 2> pixel_gradients(const PixelOutputs& outputs, double x) {
    const double sigma = kSigma;
    const double gradient = (outputs[0] - x) / (sigma * sigma);
    return {Bound{gradient, 4 * kEpsilon * std::abs(gradient)}};
}

// The deviation has three roundings (difference, 1/sigma, product), its square twice as many, and
// two products follow.
const PixelReference kReference = {
    .loss_roundings = 8, .loss = pixel_loss, .gradients = pixel_gradients};

const Launchers kLaunchers = {
    [](const kernels::LikelihoodInput& in, float* recon, const kernels::Scratch& scratch,
       cudaStream_t stream) { kernels::gaussian_forward(in, kSigma, recon, scratch, stream); },
    [](const kernels::LikelihoodInput& in, const kernels::LikelihoodGradient& gradient,
       float* recon, const kernels::Scratch& scratch, cudaStream_t stream) {
        kernels::gaussian_forward_backward(in, kSigma, gradient, recon, scratch, stream);
    }};

using Gaussian = LikelihoodTest;

TEST_F(Gaussian, EveryRaggedSize) {
    check_every_size(kLaunchers, kReference);
}

TEST_F(Gaussian, LargeSizes) {
    check_large_sizes(kLaunchers, kReference);
}

TEST_F(Gaussian, UnalignedArrays) {
    check(kLaunchers, kReference, {33, 128}, 1);
}

TEST_F(Gaussian, SamplesAndRowWeights) {
    check_samples_and_weights(kLaunchers, kReference);
}

TEST_F(Gaussian, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kLaunchers, kReference);
}

TEST_F(Gaussian, NanComesThrough) {
    check_nan(kLaunchers, kReference);
}

TEST_F(Gaussian, AddBias) {
    for (const Shape& shape : ragged_shapes()) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape, kReference);
        auto product = upload(in.product);
        auto bias = upload(in.bias);
        kernels::add_bias(product.data(), bias.data(), shape.rows, shape.cols, product.data(),
                          stream().get());
        expect_close(product.download(),
                     each(shape,
                          [&](auto r, auto c) {
                              return Bound{in.pre(r, c)[0], 0};
                          }),
                     "biased");
    }
}

TEST_F(Gaussian, BadRequestsThrow) {
    check_bad_requests(kLaunchers);
    auto array = output(64);
    DeviceScratch scratch(stream(), 8, 8);
    for (const float sigma : {0.0f, -1.0f, kNan, std::numeric_limits<float>::infinity()}) {
        EXPECT_THROW(kernels::gaussian_forward({array.data(), array.data(), array.data(), 8, 8},
                                               sigma, array.data(), scratch.get(), stream().get()),
                     std::invalid_argument)
            << sigma;
    }
}

}  // namespace
}  // namespace vae::test
