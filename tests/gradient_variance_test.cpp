// How much the estimators of the gradient scatter: the statistics, and what theory says of them.
#include "host/gradient_variance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <stdexcept>

#include "tests/model_fixtures.h"

namespace vae {
namespace {

TEST(VectorMoments, AgreeWithTheirDefinitions) {
    const std::vector<std::vector<double>> vectors = {{1, 2}, {3, -1}, {2, 5}};
    VectorMoments moments;
    EXPECT_TRUE(std::isnan(moments.scatter().variance));
    for (const auto& vector : vectors) moments.add(vector);
    // Means 2 and 2: squared distances 1 + 0, 1 + 9, 0 + 9.
    EXPECT_DOUBLE_EQ(moments.scatter().variance, 20 / 2.0);
    EXPECT_DOUBLE_EQ(moments.scatter().squared_mean, 8 - 10 / 3.0);
    EXPECT_DOUBLE_EQ(moments.scatter().signal_to_noise(), std::sqrt((8 - 10 / 3.0) / 10));
    EXPECT_THROW(moments.add(std::vector<double>{1}), std::invalid_argument);
    VectorMoments noise;
    for (const double value : {-1.0, 1.0}) noise.add(std::vector<double>{value});
    EXPECT_TRUE(std::isnan(noise.scatter().signal_to_noise()));
}

TEST(GradientEstimators, AreThoseThatTheSettingsAllow) {
    Config config;
    EXPECT_EQ(gradient_estimators(config, 4).size(), 9U);
    config.objective.free_bits = 0.1;  // of KL terms in closed form alone
    EXPECT_EQ(gradient_estimators(config, 4).size(), 5U);
    EXPECT_EQ(gradient_estimators(config, 4)[0].objective.free_bits, 0.1);
    config.objective.free_bits = 0;
    config.model.prior = Prior::mixture;  // without KL terms in closed form
    EXPECT_EQ(gradient_estimators(config, 4).size(), 7U);
    config.model.prior = Prior::normal;
    config.model.likelihood = Likelihood::gaussian;
    config.model.variance = Variance::optimal;  // of the pathwise ELBO alone
    EXPECT_EQ(gradient_estimators(config, 4).size(), 4U);
}

class GradientScatterTest : public testing::Test {
  protected:
    GradientScatterTest() : splits_(test::random_splits(20, 3, 12)) {
        config_.model.encoder_hidden = {8};
        config_.model.decoder_hidden = {8};
        config_.model.latent = 3;
        config_.model.activation = Activation::tanh;
        config_.train.batch = 20;
        for (const Estimator& estimator : gradient_estimators(config_, kSamples)) {
            Config with = config_;
            with.objective = estimator.objective;
            const ParameterLayout layout(with.model, 12);
            const auto backend = make_cpu_double_backend(with, layout);
            backend->set_data(splits_);
            const auto rows = test::first_rows(20);
            all_.push_back(gradient_scatter(*backend, estimator, test::initial_state(layout, with),
                                            rows, 1, kRepeats));
        }
    }

    const GradientScatter& find(const std::string& name, std::uint32_t samples) const {
        for (const GradientScatter& row : all_) {
            if (row.estimator.name == name && row.estimator.objective.samples == samples) {
                return row;
            }
        }
        throw std::logic_error(name);
    }

    static constexpr std::uint32_t kSamples = 8;
    static constexpr std::uint32_t kRepeats = 400;
    Config config_;
    Splits splits_;
    std::vector<GradientScatter> all_;
};

// A variance of 400 vectors of many elements is known to about sqrt(2/400) = 7 %, a ratio to 10 %.
TEST_F(GradientScatterTest, IsAsTheorySays) {
    const auto& one = find("pathwise, KL in closed form", 1);
    const auto& many = find("pathwise, KL in closed form", kSamples);
    EXPECT_NEAR(many.encoder.variance / one.encoder.variance, 1. / kSamples, .3 / kSamples);
    EXPECT_NEAR(many.decoder.variance / one.decoder.variance, 1. / kSamples, .3 / kSamples);
    // They estimate one gradient. ‖E g‖² is known to 2·‖E g‖·sqrt(variance/repeats).
    const double signal = std::sqrt(many.encoder.squared_mean);
    EXPECT_NEAR(one.encoder.squared_mean, many.encoder.squared_mean,
                4 * 2 * signal * std::sqrt(one.encoder.variance / kRepeats) +
                    4 * one.encoder.variance / kRepeats);
    // The score function is worse than the pathwise gradient, and its baselines help.
    const auto& bare = find("score function", kSamples);
    EXPECT_GT(bare.encoder.variance, 10 * many.encoder.variance);
    EXPECT_LT(find("score function, running mean", kSamples).encoder.variance,
              .5 * bare.encoder.variance);
    EXPECT_LT(find("score function, leave one out", kSamples).encoder.variance,
              .5 * bare.encoder.variance);
    // They concern the encoder alone: the decoder's gradient is the same, draw by draw.
    EXPECT_EQ(bare.decoder.variance, many.decoder.variance);
    EXPECT_EQ(find("IWAE, doubly reparameterised", kSamples).decoder.variance,
              find("IWAE", kSamples).decoder.variance);
}

TEST_F(GradientScatterTest, TableObjectAndPictureHaveEveryEstimator) {
    const std::string table = scatter_table(all_);
    const std::string svg = scatter_svg(all_, "a < b & c");
    for (const GradientScatter& row : all_) {
        EXPECT_NE(table.find(row.estimator.name), std::string::npos);
        EXPECT_NE(svg.find(">" + row.estimator.name), std::string::npos);
    }
    EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    // Two bars a row, two of the legend, and the ground.
    std::size_t rectangles = 0;
    for (std::size_t at = 0; (at = svg.find("<rect", at)) != std::string::npos; ++at) ++rectangles;
    EXPECT_EQ(rectangles, 2 * all_.size() + 3);
    all_.front().encoder.variance = std::nan("");
    EXPECT_EQ(scatter_svg(all_, "").find("nan"), std::string::npos);
    EXPECT_NE(scatter_svg({}, "").find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace vae
