#include "kernels/gaussian.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "tests/bounded_reference.h"
#include "tests/likelihood_check.h"

namespace vae::test {
namespace {

constexpr double kSigma = 0.35;
constexpr double kVariance = kSigma * kSigma;
constexpr double kLogTwoPi = 1.8378770664093454836;

// The difference has one rounding, its square three.
PixelLoss pixel_loss(const PixelOutputs& m, double x) {
    const double square = (x - m[0]) * (x - m[0]) / (2 * kVariance);
    const double constant = (std::log(kVariance) + kLogTwoPi) / 2;
    return {square + constant, square + std::abs(constant), 3 * kEpsilon * square};
}

std::array<Bound, 2> pixel_gradients(const PixelOutputs& m, double x) {
    const double gradient = (m[0] - x) / kVariance;
    return {Bound{gradient, 4 * kEpsilon * std::abs(gradient)}};
}

const PixelReference kReference = {.loss = pixel_loss, .gradients = pixel_gradients};

// On the device for the length of a call.
struct VarianceOnDevice {
    explicit VarianceOnDevice(cudaStream_t stream) {
        const kernels::GaussianVariance value = {
            .logvar = std::log(kVariance), .precision = 1 / kVariance, .slope = 0, .average = 0};
        check_cuda(cudaMalloc(&data, sizeof value), "allocate");
        check_cuda(cudaMemcpyAsync(data, &value, sizeof value, cudaMemcpyHostToDevice, stream),
                   "copy");
        check_cuda(cudaStreamSynchronize(stream), "synchronize");
    }
    ~VarianceOnDevice() { EXPECT_EQ(cudaFree(data), cudaSuccess); }
    VarianceOnDevice(const VarianceOnDevice&) = delete;
    VarianceOnDevice& operator=(const VarianceOnDevice&) = delete;
    VarianceOnDevice(VarianceOnDevice&&) = delete;
    VarianceOnDevice& operator=(VarianceOnDevice&&) = delete;

    kernels::GaussianVariance* data = nullptr;
};

const Launchers kLaunchers = {
    [](const kernels::LikelihoodInput& in, float* recon, const kernels::Scratch& scratch,
       cudaStream_t stream) {
        const VarianceOnDevice variance(stream);
        kernels::gaussian_forward(in, variance.data, recon, scratch, stream);
        check_cuda(cudaStreamSynchronize(stream), "synchronize");
    },
    [](const kernels::LikelihoodInput& in, const kernels::LikelihoodGradient& gradient,
       float* recon, const kernels::Scratch& scratch, cudaStream_t stream) {
        const VarianceOnDevice variance(stream);
        kernels::gaussian_forward_backward(in, variance.data, gradient, recon, nullptr, scratch,
                                           stream);
        check_cuda(cudaStreamSynchronize(stream), "synchronize");
    }};

using Gaussian = LikelihoodTest;

TEST_F(Gaussian, EveryRaggedSize) {
    check_every_size(kLaunchers, kReference);
}

TEST_F(Gaussian, LargeSizes) {
    check_large_sizes(kLaunchers, kReference);
}

TEST_F(Gaussian, LaunchPaths) {
    check_launch_paths(kLaunchers, kReference);
}

TEST_F(Gaussian, UnalignedArrays) {
    check_unaligned(kLaunchers, kReference);
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
        kernels::add_bias(product.data(), bias.data(), shape.rows, shape.cols, shape.cols,
                          product.data(), stream().get());
        expect_close(product.download(),
                     each(shape,
                          [&](auto r, auto c) {
                              return Bound{in.pre(r, c)[0], 0};
                          }),
                     "biased");
    }
}

// Means, where rows are longer.
TEST_F(Gaussian, AddBiasToTheFirstColumns) {
    for (const int cols : {1, 31, 32, 33, 128}) {
        for (const int more : {1, 3, 4, 128}) {
            const Shape shape{37, cols + more};
            const auto product = random_normals(shape.size(), 1);
            const auto bias = random_normals(shape.width(), 2);
            const auto width = static_cast<std::size_t>(cols);
            auto on_device = upload(product);
            auto bias_on_device = upload(bias);
            auto out = output(37 * width);
            kernels::add_bias(on_device.data(), bias_on_device.data(), 37, shape.cols, cols,
                              out.data(), stream().get());
            const auto sum = [&](std::size_t r, std::size_t c) {
                return Bound{product[r * shape.width() + c] + bias[c], 0};
            };
            expect_close(out.download(), each({37, cols}, sum), "biased");
        }
    }
}

TEST_F(Gaussian, SquaresOfBothKinds) {
    for (const Shape& shape : {Shape{1, 1}, Shape{33, 31}, Shape{37, 128}, Shape{65, 300}}) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape, kReference);
        LikelihoodArrays arrays(stream(), in, 0);
        auto alone = output(shape.height());
        auto beside = output(shape.height());
        auto d_bias = output(shape.width());
        const VarianceOnDevice variance(stream().get());
        kernels::gaussian_squares(arrays.input(), alone.data(), arrays.scratch.get(),
                                  stream().get());
        kernels::gaussian_forward_backward(
            arrays.input(), variance.data, {1, nullptr, arrays.product.data(), d_bias.data()},
            arrays.recon.data(), beside.data(), arrays.scratch.get(), stream().get());
        std::vector<Bound> squares;
        for (std::size_t r = 0; r < shape.height(); ++r) {
            Sum sum;
            for (std::size_t c = 0; c < shape.width(); ++c) {
                sum.add(std::pow(in.pre(r, c)[0] - in.pixel(r, c), 2));
            }
            squares.push_back(sum.within(13));
        }
        expect_close(alone.download(), squares, "squares");
        expect_same_bits(beside.download(), alone.download(), "squares with the gradient");
    }
}

TEST_F(Gaussian, BadRequestsThrow) {
    check_bad_requests(kLaunchers);
    auto array = output(64);
    EXPECT_THROW(
        kernels::add_bias(array.data(), array.data(), 4, 3, 4, array.data(), stream().get()),
        std::invalid_argument);
}

// A variance for each pixel.

constexpr kernels::LogBounds kBounds = {-2.5f, 3.0f};

// v = bounded(s): its error is that of two sums and two log1p, relative to v.
PixelLoss scaled_loss(const PixelOutputs& m, double x) {
    const BoundedReference v(m[1], kBounds.least, kBounds.most);
    const double square = (x - m[0]) * (x - m[0]) * std::exp(-v.value);
    const double constant = kLogTwoPi / 2;
    // exp: its argument's error and 4 roundings; square: 4 more.
    const double square_error = square * (v.error + 8 * kEpsilon);
    return {(square + v.value) / 2 + constant, square / 2 + std::abs(v.value) / 2 + constant,
            (square_error + v.error) / 2 + kEpsilon * (square + std::abs(v.value))};
}

std::array<Bound, 2> scaled_gradients(const PixelOutputs& m, double x) {
    const BoundedReference v(m[1], kBounds.least, kBounds.most);
    const double precision = std::exp(-v.value);
    const double d_m = (m[0] - x) * precision;
    const double square = (m[0] - x) * d_m;
    const double d_s = (1 - square) / 2 * v.slope;
    const double square_error = square * (v.error + 8 * kEpsilon);
    return {Bound{d_m, std::abs(d_m) * (v.error + 8 * kEpsilon)},
            Bound{d_s, (square_error / 2 + 2 * kEpsilon) * v.slope +
                           std::abs(d_s) * (v.slope_error + 3 * kEpsilon)}};
}

const PixelReference kScaledReference = {
    .outputs = 2, .loss = scaled_loss, .gradients = scaled_gradients, .large = 50};

const Launchers kScaledLaunchers = {
    [](const kernels::LikelihoodInput& in, float* recon, const kernels::Scratch& scratch,
       cudaStream_t stream) {
        kernels::gaussian_pixel_forward(in, kBounds, recon, scratch, stream);
    },
    [](const kernels::LikelihoodInput& in, const kernels::LikelihoodGradient& gradient,
       float* recon, const kernels::Scratch& scratch, cudaStream_t stream) {
        kernels::gaussian_pixel_forward_backward(in, kBounds, gradient, recon, scratch, stream);
    }};

using GaussianPixel = LikelihoodTest;

TEST_F(GaussianPixel, EveryRaggedSize) {
    check_every_size(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, LargeSizes) {
    check_large_sizes(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, LaunchPaths) {
    check_launch_paths(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, UnalignedArrays) {
    check_unaligned(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, SamplesAndRowWeights) {
    check_samples_and_weights(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, NanComesThrough) {
    check_nan(kScaledLaunchers, kScaledReference);
}

TEST_F(GaussianPixel, BadRequestsThrow) {
    check_bad_requests(kScaledLaunchers);
}

}  // namespace
}  // namespace vae::test
