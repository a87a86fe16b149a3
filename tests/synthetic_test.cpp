#include "host/synthetic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "host/config.h"
#include "host/data_source.h"

namespace vae {
namespace {

// The sample covariance of n examples differs from the true one, C, by a standard deviation of
// sqrt((C_pp C_qq + C_pq²)/n) an entry, and the mean by sqrt(C_pp/n). The set is fixed, so the test
// either always passes or never; five deviations leave room for the largest of 44 entries.
TEST(Synthetic, LinearGaussianHasTheStatedMeanAndCovariance) {
    const LinearGaussian model = linear_gaussian_model();
    const Dataset data = synthetic_set("linear-gaussian").train;
    const auto& x = std::get<FloatValues>(data.values);
    const std::size_t pixels = model.pixels;
    ASSERT_EQ(data.shape, (ImageShape{1, pixels, 1}));
    ASSERT_EQ(x.size(), data.size * pixels);
    const auto n = static_cast<double>(data.size);
    const auto covariance = [&](std::size_t p, std::size_t q) {
        double c = p == q ? model.sigma * model.sigma : 0;
        for (std::size_t j = 0; j < model.latent; ++j) {
            c += model.weight[p * model.latent + j] * model.weight[q * model.latent + j];
        }
        return c;
    };
    for (std::size_t p = 0; p < pixels; ++p) {
        double mean = 0;
        for (std::size_t i = 0; i < data.size; ++i)
            mean += static_cast<double>(x[i * pixels + p]) / n;
        EXPECT_NEAR(mean, model.bias[p], 5 * std::sqrt(covariance(p, p) / n));
        for (std::size_t q = 0; q <= p; ++q) {
            double sample = 0;
            for (std::size_t i = 0; i < data.size; ++i) {
                sample += (static_cast<double>(x[i * pixels + p]) - model.bias[p]) *
                          (static_cast<double>(x[i * pixels + q]) - model.bias[q]) / n;
            }
            const double c = covariance(p, q);
            EXPECT_NEAR(sample, c, 5 * std::sqrt((covariance(p, p) * covariance(q, q) + c * c) / n))
                << p << " " << q;
        }
    }
}

TEST(Synthetic, BarsAreWholeAndAsFrequentAsStated) {
    const Dataset data = synthetic_set("bars").train;
    const auto& x = std::get<ByteValues>(data.values);
    ASSERT_EQ(data.shape, (ImageShape{8, 8, 1}));
    double on = 0;
    for (std::size_t i = 0; i < data.size; ++i) {
        const std::uint8_t* image = x.data() + i * 64;
        // Every lit pixel belongs to a row or a column that is lit throughout.
        for (std::size_t row = 0; row < 8; ++row) {
            for (std::size_t column = 0; column < 8; ++column) {
                const std::uint8_t pixel = image[row * 8 + column];
                ASSERT_TRUE(pixel == 0 || pixel == 255);
                if (pixel == 0) continue;
                ++on;
                bool whole_row = true;
                bool whole_column = true;
                for (std::size_t k = 0; k < 8; ++k) {
                    whole_row = whole_row && image[row * 8 + k] == 255;
                    whole_column = whole_column && image[k * 8 + column] == 255;
                }
                ASSERT_TRUE(whole_row || whole_column) << i;
            }
        }
    }
    // P(pixel on) = 1 − (7/8)². An image's share of lit pixels has a deviation below 0.16, its mean
    // over 6000 below 0.0021; five of them.
    EXPECT_NEAR(on / static_cast<double>(x.size()), 1 - 49.0 / 64.0, 0.0105);
}

TEST(Synthetic, SetsHaveATestSetAndAreTheSameEachTime) {
    DataConfig config;
    config.source = "synthetic:bars";
    const Splits splits = load_splits(config, {});
    EXPECT_EQ(splits.train.size, 6000u);
    EXPECT_EQ(splits.test.size, 1000u);
    EXPECT_EQ(splits.test.first_index, 6000u);
    EXPECT_EQ(std::get<ByteValues>(load_examples("synthetic:bars").values),
              std::get<ByteValues>(splits.test.values));
    EXPECT_NE(std::get<ByteValues>(splits.test.values), std::vector<std::uint8_t>(1000 * 64, 0));
    config.source = "synthetic:linear-gaussian";
    EXPECT_EQ(load_splits(config, {.likelihood = Likelihood::gaussian}).train.size, 6000u);
    EXPECT_THROW(load_splits(config, {}), std::runtime_error);
}

}  // namespace
}  // namespace vae
