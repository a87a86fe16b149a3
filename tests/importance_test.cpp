// log p(x) by importance sampling: sums against their definitions, and the driver over a backend.
#include "host/importance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "host/sample_statistics.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Sums of at most 1000 terms in double, each rounded by 1e-16 of a number of order 1 to 100.
constexpr double kRounding = 1e-11;

// Log weights of order `scale`, some far below the others.
std::vector<double> log_weights(std::size_t count, double scale) {
    std::vector<double> normals(count);
    fill_normal({9, Purpose::epsilon, 0, 0, 0}, std::span<double>(normals));
    for (double& value : normals) value = scale * value - 200;
    return normals;
}

// log mean exp of [first, last), relative to -200.
double log_mean(const std::vector<double>& values, std::size_t first, std::size_t last) {
    double sum = 0;
    for (std::size_t i = first; i < last; ++i) sum += std::exp(values[i] + 200);
    return std::log(sum / static_cast<double>(last - first)) - 200;
}

ImportanceSum sum_of(const std::vector<double>& values) {
    ImportanceSum sum(static_cast<std::uint32_t>(values.size()));
    for (const double value : values) sum.add(value);
    return sum;
}

TEST(LogSum, IsTheLogarithmOfTheSum) {
    LogSum sum;
    EXPECT_EQ(sum.log(), -kInfinity);
    for (const double term : {-kInfinity, -1000.0, -1001.0, -999.0}) sum.add(term);
    EXPECT_NEAR(sum.log(), -1000 + std::log(1 + std::exp(-1) + std::exp(1)), kRounding);
    sum.add(std::nan(""));
    sum.add(1);
    EXPECT_TRUE(std::isnan(sum.log()));
}

TEST(ImportanceSum, BoundSamplesAreOneFiveTenAndSoOn) {
    EXPECT_EQ(bound_samples(1), (std::vector<std::uint32_t>{1}));
    EXPECT_EQ(bound_samples(4), (std::vector<std::uint32_t>{1}));
    EXPECT_EQ(bound_samples(50), (std::vector<std::uint32_t>{1, 5, 10, 50}));
    EXPECT_EQ(bound_samples(kMostDraws).back(), 10'000'000U);
}

TEST(ImportanceSum, AgreesWithItsDefinitions) {
    for (const std::size_t count : {2U, 5U, 31U, 100U, 1000U, 1237U}) {
        const auto values = log_weights(count, 2);
        const ImportanceSum sum = sum_of(values);
        EXPECT_NEAR(sum.log_px(), log_mean(values, 0, count), kRounding);
        std::vector<double> weights;
        double squares = 0;
        for (const double value : values) {
            weights.push_back(std::exp(value + 200));
            squares += weights.back() * weights.back();
        }
        const double total = mean_of(weights) * static_cast<double>(count);
        EXPECT_NEAR(sum.effective_draws(), total * total / squares, 1e-9);
        EXPECT_NEAR(sum.error(), error_of_mean(weights) / mean_of(weights), 1e-9);
    }
}

// Disjoint groups in the order of the draws; those of a group that is not full are left out.
TEST(ImportanceSum, BoundsAreMeansOverGroups) {
    const std::size_t count = 137;
    const auto values = log_weights(count, 3);
    const auto bounds = sum_of(values).bounds();
    const auto samples = bound_samples(count);
    ASSERT_EQ(bounds.size(), samples.size());
    for (std::size_t level = 0; level < samples.size(); ++level) {
        double sum = 0;
        const std::size_t groups = count / samples[level];
        for (std::size_t g = 0; g < groups; ++g) {
            sum += log_mean(values, g * samples[level], (g + 1) * samples[level]);
        }
        EXPECT_NEAR(bounds[level], sum / static_cast<double>(groups), kRounding);
    }
}

TEST(ImportanceSum, HugeWeightsAndWeightsOfZeroAreNoTrouble) {
    const ImportanceSum large = sum_of({5000, 5000, -kInfinity, 5000});
    EXPECT_NEAR(large.log_px(), 5000 + std::log(.75), kRounding);
    EXPECT_NEAR(large.effective_draws(), 3, kRounding);
    EXPECT_EQ(sum_of({-kInfinity, -kInfinity}).log_px(), -kInfinity);
    const ImportanceSum equal = sum_of({-3, -3, -3});
    EXPECT_EQ(equal.error(), 0);
    EXPECT_NEAR(equal.effective_draws(), 3, kRounding);
    EXPECT_TRUE(std::isnan(sum_of({1}).error()));
    const ImportanceSum bad = sum_of({1, std::nan(""), 2});
    EXPECT_TRUE(std::isnan(bad.log_px()));
    EXPECT_TRUE(std::isnan(bad.error()));
    EXPECT_TRUE(std::isnan(bad.effective_draws()));
}

class ImportanceSampling : public testing::Test {
  protected:
    ImportanceSampling() : splits_(test::random_splits(7, 13, 9)) {
        config_.model.encoder_hidden = {6};
        config_.model.decoder_hidden = {5};
        config_.model.latent = 3;
        const ParameterLayout layout(config_.model, 9);
        backend_ = make_cpu_double_backend(config_, layout);
        backend_->set_data(splits_);
        backend_->set_state(test::initial_state(layout, config_));
    }

    ImportanceEstimate estimate(const std::vector<std::uint32_t>& rows, std::uint32_t draws,
                                std::uint64_t seed = 4) {
        return importance_sampling(
            *backend_, {.split = Split::test, .rows = rows, .draws = draws, .seed = seed},
            [this](std::size_t done) { done_.push_back(done); });
    }

    Config config_;
    Splits splits_;
    std::unique_ptr<Backend> backend_;
    std::vector<std::size_t> done_;
};

TEST_F(ImportanceSampling, ARowsDrawsAreItsOwn) {
    const auto all = estimate(test::first_rows(13), 130);
    const auto one = estimate({11}, 130);
    ASSERT_EQ(all.log_px.size(), 13U);
    // The rows of a matrix product may be summed in another order.
    EXPECT_NEAR(all.log_px[11], one.log_px[0], kRounding);
    EXPECT_NEAR(all.effective_draws[11], one.effective_draws[0], 1e-9);
    EXPECT_NE(one.log_px[0], estimate({11}, 130, 5).log_px[0]);
    EXPECT_EQ(all.bounds.back().samples, 100U);
}

TEST_F(ImportanceSampling, TellsHowFarItIs) {
    (void)estimate(test::first_rows(13), 130);
    ASSERT_FALSE(done_.empty());
    EXPECT_TRUE(std::is_sorted(done_.begin(), done_.end()));
    EXPECT_EQ(done_.back(), 13U * 130U);
}

TEST_F(ImportanceSampling, OneDrawIsTheSampledBound) {
    const auto rows = test::first_rows(13);
    const auto single = estimate(rows, 1);
    std::vector<double> elbo;
    backend_->draw({.split = Split::test, .rows = rows, .draws = 1, .seed = 4, .wants_z = true},
                   [&](const DrawBlock& block) {
                       EXPECT_EQ(block.z.size(), 13U * 3U);
                       for (std::size_t i = 0; i < block.rows; ++i) {
                           elbo.push_back(-block.recon[i] - block.log_ratio[i]);
                       }
                   });
    EXPECT_EQ(single.log_px, elbo);
    EXPECT_EQ(single.bounds.size(), 1U);
    EXPECT_NEAR(single.bounds[0].mean, mean_of(elbo), kRounding);
}

TEST_F(ImportanceSampling, WrongRequestsAreRefused) {
    EXPECT_THROW((void)estimate({13}, 1), std::invalid_argument);
    EXPECT_THROW((void)estimate({0}, 0), std::invalid_argument);
    EXPECT_THROW((void)estimate({0}, kMostDraws + 1), std::invalid_argument);
    EXPECT_TRUE(estimate({}, 3).log_px.empty());
}

}  // namespace
}  // namespace vae
