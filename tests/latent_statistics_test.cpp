// What the latent code holds: against closed forms, and sums over all pairs.
#include "host/latent_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "host/row_blocks.h"
#include "tests/linear_algebra.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 9;
constexpr std::size_t kExamples = 300;  // more than a block of posteriors
constexpr std::size_t kLatent = 3;

class LatentStatisticsTest : public testing::Test {
  protected:
    explicit LatentStatisticsTest(PosteriorCovariance covariance = PosteriorCovariance::diagonal)
        : splits_(test::random_splits(7, kExamples, kPixels)) {
        config_.model.posterior = covariance;
        config_.model.encoder_hidden = {6};
        config_.model.decoder_hidden = {5};
        config_.model.latent = kLatent;
        layout_ = std::make_unique<ParameterLayout>(config_.model, kPixels);
        state_ = test::initial_state(*layout_, config_);
        backend_ = make_cpu_double_backend(config_, *layout_);
        backend_->set_data(splits_);
        backend_->set_state(state_);
    }

    // The posterior of x is N(gain·W h, exp(logvar)) with the initial W, or N(0, exp(logvar)) if
    // gain is 0.
    void set_posterior(float gain, float logvar) {
        const Heads& heads = layout_->heads;
        for (std::size_t i = 0; i < heads.mu_weight.size; ++i) {
            state_.parameters[heads.mu_weight.offset + i] *= gain;
            state_.parameters[heads.logvar_weight.offset + i] = 0;
        }
        for (std::size_t j = 0; j < kLatent; ++j) {
            state_.parameters[heads.mu_bias.offset + j] *= gain;
            state_.parameters[heads.logvar_bias.offset + j] = logvar;
        }
        backend_->set_state(state_);
    }

    LatentStatistics statistics(std::size_t most_draws = kExamples) {
        return latent_statistics(*backend_, Split::test, kExamples, layout_->heads, 3, most_draws);
    }

    Config config_;
    Splits splits_;
    std::unique_ptr<ParameterLayout> layout_;
    TrainingState state_;
    std::unique_ptr<Backend> backend_;
};

// Every posterior is the prior: nothing is known of x, and no dimension is active.
TEST_F(LatentStatisticsTest, APosteriorThatIsThePriorHoldsNothing) {
    set_posterior(0, 0);
    const LatentStatistics s = statistics();
    EXPECT_EQ(s.active_units, 0U);
    for (std::size_t j = 0; j < kLatent; ++j) {
        EXPECT_EQ(s.mean_variance[j], 0);
        EXPECT_EQ(s.kl[j], 0);
    }
    // Log densities of order 5 in double.
    EXPECT_NEAR(s.information.value, 0, 1e-12);
    EXPECT_NEAR(s.aggregate_kl.value, 0, 1e-12);
}

// Posteriors without overlap tell the examples apart: I = log N, as large as it can be.
TEST_F(LatentStatisticsTest, SeparatePosteriorsHoldTheIndexOfTheExample) {
    set_posterior(1000, -9);
    const LatentStatistics s = statistics();
    EXPECT_EQ(s.active_units, kLatent);
    // Less only by what neighbours overlap.
    EXPECT_NEAR(s.information.value, std::log(static_cast<double>(kExamples)), 1e-3);
    EXPECT_LE(s.information.value, std::log(static_cast<double>(kExamples)) + 1e-12);
}

TEST_F(LatentStatisticsTest, AgreesWithSumsOverAllPairs) {
    set_posterior(4, -1);
    const std::size_t draws = 70;
    const LatentStatistics s = statistics(draws);
    EXPECT_EQ(s.draws, draws);
    const Posterior q = encode_examples(*backend_, Split::test, kExamples);
    const auto log_density = [&](std::size_t n, const float* z) {
        double sum = 0;
        for (std::size_t j = 0; j < kLatent; ++j) {
            const double d = static_cast<double>(z[j]) - static_cast<double>(q.mu[n * kLatent + j]);
            const auto logvar = static_cast<double>(q.logvar[n * kLatent + j]);
            sum -= (d * d / std::exp(logvar) + logvar + std::log(2 * std::numbers::pi)) / 2;
        }
        return sum;
    };
    double information = 0;
    double divergence = 0;
    for (std::size_t i = 0; i < draws; ++i) {
        const auto row = static_cast<std::uint32_t>(i * kExamples / draws);
        std::vector<float> z;
        backend_->draw(
            {.split = Split::test, .rows = {&row, 1}, .draws = 1, .seed = 3, .wants_z = true},
            [&](const DrawBlock& block) { z = block.z; });
        double aggregate = 0;
        double log_prior = 0;
        for (std::size_t n = 0; n < kExamples; ++n) {
            aggregate += std::exp(log_density(n, z.data())) / kExamples;
        }
        for (const float value : z) {
            const auto v = static_cast<double>(value);
            log_prior -= (v * v + std::log(2 * std::numbers::pi)) / 2;
        }
        information += (log_density(row, z.data()) - std::log(aggregate)) / draws;
        divergence += (std::log(aggregate) - log_prior) / draws;
    }
    // z and the posteriors are rounded to float, log q(z|x) − log p(z) is not: 1e-6 of each.
    EXPECT_NEAR(s.information.value, information, 1e-5);
    EXPECT_NEAR(s.aggregate_kl.value, divergence, 1e-5);
    EXPECT_GT(s.information.value, 0.1);  // else the test would not see it
    EXPECT_GT(s.information.error, 0);
}

class FullLatentStatisticsTest : public LatentStatisticsTest {
  protected:
    FullLatentStatisticsTest() : LatentStatisticsTest(PosteriorCovariance::full) {}
};

TEST_F(FullLatentStatisticsTest, AgreesWithSumsOverAllPairs) {
    set_posterior(4, -1);
    const LatentStatistics s = statistics(30);
    const Posterior q = encode_examples(*backend_, Split::test, kExamples);
    ASSERT_EQ(q.tril.size(), kExamples * 3);
    std::vector<double> kl(kLatent, 0.0);
    const auto log_density = [&](std::size_t n, const std::vector<double>& z) {
        test::Matrix l = test::zeros(kLatent, kLatent);
        for (std::size_t i = 0, at = n * 3; i < kLatent; ++i) {
            for (std::size_t j = 0; j < i; ++j) l[i][j] = static_cast<double>(q.tril[at++]);
            l[i][i] = std::exp(static_cast<double>(q.logvar[n * kLatent + i]) / 2);
        }
        test::Matrix covariance = test::zeros(kLatent, kLatent);
        std::vector<double> mean(kLatent);
        for (std::size_t i = 0; i < kLatent; ++i) {
            mean[i] = static_cast<double>(q.mu[n * kLatent + i]);
            for (std::size_t j = 0; j < kLatent; ++j) {
                for (std::size_t k = 0; k < kLatent; ++k) covariance[i][j] += l[i][k] * l[j][k];
            }
        }
        for (std::size_t i = 0; i < kLatent; ++i) {
            kl[i] = (mean[i] * mean[i] + covariance[i][i] - 1 - std::log(covariance[i][i])) / 2;
        }
        return test::log_normal(z, mean, covariance);
    };
    double information = 0;
    for (std::uint32_t i = 0; i < 30; ++i) {
        const auto row = static_cast<std::uint32_t>(i * kExamples / 30);
        std::vector<double> z;
        backend_->draw(
            {.split = Split::test, .rows = {&row, 1}, .draws = 1, .seed = 3, .wants_z = true},
            [&](const DrawBlock& block) { z.assign(block.z.begin(), block.z.end()); });
        double aggregate = 0;
        for (std::size_t n = 0; n < kExamples; ++n) {
            aggregate += std::exp(log_density(n, z)) / kExamples;
        }
        information += (log_density(row, z) - std::log(aggregate)) / 30;
    }
    EXPECT_NEAR(s.information.value, information, 1e-5);  // z and the posteriors are floats
    std::vector<double> mean_kl(kLatent, 0.0);
    for (std::size_t n = 0; n < kExamples; ++n) {
        (void)log_density(n, std::vector<double>(kLatent, 0.0));
        for (std::size_t j = 0; j < kLatent; ++j) mean_kl[j] += kl[j] / kExamples;
    }
    for (std::size_t j = 0; j < kLatent; ++j) EXPECT_NEAR(s.kl[j], mean_kl[j], 1e-6);
    // The row below the first is wider for what it shares with it.
    EXPECT_NE(s.kl[0], s.kl[1]);
}

// I(x;z) + KL(q(z) ‖ p(z)) is the mean KL(q(z|x) ‖ p(z)), which is in closed form here.
TEST_F(LatentStatisticsTest, InformationAndAggregateKlAddUpToTheKl) {
    set_posterior(4, -1);
    const LatentStatistics s = statistics();
    double kl = 0;
    for (const double part : s.kl) kl += part;
    EXPECT_NEAR(kl, backend_->evaluate(Split::test, 1).kl / kExamples, 1e-6);
    const double error = std::hypot(s.information.error, s.aggregate_kl.error);
    EXPECT_NEAR(s.information.value + s.aggregate_kl.value, kl, 4 * error);
    EXPECT_LT(4 * error, kl / 2);
}

}  // namespace
}  // namespace vae
