#include "kernels/poisson.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "tests/likelihood_check.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

// expf is good to 2 units beside the nearest float: 5 roundings.
constexpr double kExpRoundings = 5;

// x·(e^t − 1 − t), t = l − log x, which rounds to |l| + |log x| and counts (rate − x) times; expm1
// and t cancel to the size of x·|t|. Stirling's series has a few roundings and 4e-8 of itself.
PixelLoss pixel_loss(const PixelOutputs& m, double x) {
    const double l = m[0];
    const double rate = std::exp(l);
    const double loss = rate - x * l + std::lgamma(x + 1);
    if (x == 0) return {rate, rate, kExpRoundings * kEpsilon * rate};
    const double t = l - std::log(x);
    const double constant = x - x * std::log(x) + std::lgamma(x + 1);
    const double of_argument =
        std::abs(rate - x) * kEpsilon * (std::abs(l) + 4 * std::abs(std::log(x)));
    return {loss, std::abs(loss),
            of_argument + 8 * kEpsilon * x * (std::abs(std::expm1(t)) + std::abs(t)) +
                8 * kEpsilon * constant + 4e-8};
}

std::array<Bound, 2> pixel_gradients(const PixelOutputs& m, double x) {
    const double rate = std::exp(m[0]);
    return {Bound{rate - x, kEpsilon * (kExpRoundings * rate + std::abs(rate - x))}};
}

// Counts that take every branch, and large ones.
float count_of(float u) {
    return u < 0.6f ? std::floor(u * 10) : std::floor(std::exp(u * 12));
}

const PixelReference kReference = {
    .loss = pixel_loss, .gradients = pixel_gradients, .value = count_of, .large = 20};

const Launchers kLaunchers = {kernels::poisson_forward, kernels::poisson_forward_backward};

using Poisson = LikelihoodTest;

TEST_F(Poisson, EveryRaggedSize) {
    check_every_size(kLaunchers, kReference);
}

TEST_F(Poisson, LargeSizes) {
    check_large_sizes(kLaunchers, kReference);
}

TEST_F(Poisson, LaunchPaths) {
    check_launch_paths(kLaunchers, kReference);
}

TEST_F(Poisson, UnalignedArrays) {
    check_unaligned(kLaunchers, kReference);
}

TEST_F(Poisson, SamplesAndRowWeights) {
    check_samples_and_weights(kLaunchers, kReference);
}

TEST_F(Poisson, InPlaceAndRepeatsBitForBit) {
    check_in_place_and_repeats(kLaunchers, kReference);
}

TEST_F(Poisson, NanComesThrough) {
    check_nan(kLaunchers, kReference);
}

// What the definition in float would lose: at the rate itself the loss is ½ log(2πx) and a little.
TEST_F(Poisson, LargeCountsKeepTheirDigits) {
    for (const float count : {1.0f, 2.0f, 3.0f, 4.0f, 100.0f, 1e4f, 1e6f}) {
        auto product = upload(std::vector<float>{std::log(count)});
        auto bias = upload(std::vector<float>{0});
        auto x = upload(std::vector<float>{count});
        auto recon = output(1);
        DeviceScratch scratch(stream(), 1, 1);
        kernels::poisson_forward({product.data(), bias.data(), x.data(), 1, 1}, recon.data(),
                                 scratch.get(), stream().get());
        const double exact = count;
        const double want = exact - exact * std::log(exact) + std::lgamma(exact + 1);
        EXPECT_NEAR(recon.download()[0], want, 1e-6 * want) << count;
    }
}

TEST_F(Poisson, Mean) {
    for (const Shape& shape : ragged_shapes()) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape, kReference);
        auto product = upload(in.product);
        auto bias = upload(in.bias);
        kernels::poisson_mean({product.data(), bias.data(), nullptr, shape.rows, shape.cols},
                              product.data(), stream().get());
        const auto rate = [&](std::size_t r, std::size_t c) {
            const double value = std::exp(in.pre(r, c)[0]);
            return Bound{value, kExpRoundings * kEpsilon * value};
        };
        expect_close(product.download(), each(shape, rate), "mean");
    }
}

// log1p is good to 1 unit beside the nearest float, which are 3 roundings; a constant and a
// product. In place, as everything elementwise may be.
TEST_F(Poisson, LogCounts) {
    for (const Shape& shape : ragged_shapes()) {
        SCOPED_TRACE(testing::Message() << shape);
        for (const std::size_t shift : {0U, 1U}) {
            const LikelihoodInputs in(shape, kReference);
            auto x = upload(in.x, shift);
            StoredArray out(stream(), Storage::fp32, shape.size(), shift);
            StoredArray half(stream(), Storage::bf16, shape.size(), shift);
            for (auto* result : {&out, &half}) {
                kernels::log_counts(x.data(), shape.rows, shape.cols, result->get(),
                                    stream().get());
            }
            kernels::log_counts(x.data(), shape.rows, shape.cols, x.data(), stream().get());
            const auto want = each(shape, [&](std::size_t r, std::size_t c) {
                const double value = std::log2(1 + in.pixel(r, c)) / 8;
                return Bound{value, 5 * kEpsilon * value};
            });
            expect_close(out.download(), want, "log counts");
            expect_close(half.download(), stored(want, Storage::bf16), "log counts in bf16");
            expect_close(x.download(), want, "log counts in place");
        }
    }
    auto x = upload(std::vector<float>{0, kNan, 255});
    kernels::log_counts(x.data(), 1, 3, x.data(), stream().get());
    EXPECT_EQ(x.download()[0], 0);
    EXPECT_TRUE(std::isnan(x.download()[1]));
    EXPECT_NEAR(x.download()[2], 1, 1e-6);
    EXPECT_THROW(kernels::log_counts(x.data(), 1, 3, {x.data(), Storage::bf16}, stream().get()),
                 std::invalid_argument);
}

TEST_F(Poisson, BadRequestsThrow) {
    check_bad_requests(kLaunchers);
    EXPECT_THROW(kernels::log_counts(nullptr, -1, 1, nullptr, stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
