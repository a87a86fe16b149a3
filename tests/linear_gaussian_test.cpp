// A VAE without hidden layers and with a Gaussian likelihood is probabilistic PCA (Tipping &
// Bishop 1999): x = W z + b + sigma·noise, so that
//     evidence   p(x) = N(b, W Wᵀ + sigma²·I)
//     posterior  p(z|x) = N(M⁻¹Wᵀ(x − b), sigma²·M⁻¹),  M = WᵀW + sigma²·I
// and for any q, ELBO(q) + KL(q ‖ p(z|x)) = log p(x). The left side uses the backend's own numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "host/backend.h"
#include "host/importance.h"
#include "host/sample_statistics.h"
#include "tests/linear_algebra.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 5;
constexpr std::size_t kLatent = 2;
constexpr std::size_t kBatch = 4;
// E[recon] needs six coefficients of a quadratic; the further draws check that it is one.
constexpr std::size_t kDraws = 12;

// All numbers are of order 10 and are computed by a few hundred operations of 1e-16 each, in the
// evidence through a 5×5 factorization of condition number below 100.
constexpr double kRounding = 1e-12;

using test::log_normal;
using test::Matrix;
using test::solve;
using test::zeros;

// The decoder's side of the model, from the parameters as the backend holds them.
struct LinearModel {
    Matrix w = zeros(kPixels, kLatent);
    std::vector<double> b;
    double sigma = 0;

    double evidence(const std::vector<double>& x) const {
        Matrix covariance = zeros(kPixels, kPixels);
        for (std::size_t i = 0; i < kPixels; ++i) {
            for (std::size_t j = 0; j < kPixels; ++j) {
                for (std::size_t l = 0; l < kLatent; ++l) covariance[i][j] += w[i][l] * w[j][l];
            }
            covariance[i][i] += sigma * sigma;
        }
        return log_normal(x, b, covariance);
    }

    Matrix precision() const {  // of the posterior: M / sigma²
        Matrix result = zeros(kLatent, kLatent);
        for (std::size_t l = 0; l < kLatent; ++l) {
            for (std::size_t k = 0; k < kLatent; ++k) {
                for (std::size_t i = 0; i < kPixels; ++i) {
                    result[l][k] += w[i][l] * w[i][k] / (sigma * sigma);
                }
            }
            result[l][l] += 1;
        }
        return result;
    }

    Matrix covariance() const {  // of the posterior
        Matrix result = zeros(kLatent, kLatent);
        for (std::size_t k = 0; k < kLatent; ++k) {
            std::vector<double> unit(kLatent, 0.0);
            unit[k] = 1;
            const auto column = solve(precision(), unit).first;
            for (std::size_t l = 0; l < kLatent; ++l) result[l][k] = column[l];
        }
        return result;
    }

    std::vector<double> posterior_mean(const std::vector<double>& x) const {
        std::vector<double> projected(kLatent, 0.0);
        for (std::size_t l = 0; l < kLatent; ++l) {
            for (std::size_t i = 0; i < kPixels; ++i) {
                projected[l] += w[i][l] * (x[i] - b[i]) / (sigma * sigma);
            }
        }
        return solve(precision(), projected).first;
    }

    // The covariance's Cholesky factor, [L_00, L_10, L_11].
    std::array<double, 3> cholesky() const {
        const Matrix c = covariance();
        const double first = std::sqrt(c[0][0]);
        const double below = c[1][0] / first;
        return {first, below, std::sqrt(c[1][1] - below * below)};
    }

    // KL(N(mu, diag exp(logvar)) ‖ p(z|x)).
    double kl_to_posterior(const std::vector<double>& x, const std::vector<double>& mu,
                           const std::vector<double>& logvar) const {
        const Matrix inverse = precision();
        const auto mean = posterior_mean(x);
        double twice = -static_cast<double>(kLatent) - solve(inverse, mu).second;
        for (std::size_t l = 0; l < kLatent; ++l) {
            twice += inverse[l][l] * std::exp(logvar[l]) - logvar[l];
            for (std::size_t k = 0; k < kLatent; ++k) {
                twice += (mu[l] - mean[l]) * inverse[l][k] * (mu[k] - mean[k]);
            }
        }
        return twice / 2;
    }
};

class LinearGaussian : public testing::Test {
  protected:
    explicit LinearGaussian(PosteriorCovariance posterior = PosteriorCovariance::diagonal,
                            const ObjectiveConfig& objective = {}) {
        config_.model.posterior = posterior;
        config_.objective = objective;
        config_.model.encoder_hidden = {};
        config_.model.decoder_hidden = {};
        config_.model.latent = kLatent;
        config_.model.likelihood = Likelihood::gaussian;
        config_.model.sigma = .6;
        splits_.train = test::random_floats(kBatch, kPixels);
        layout_ = std::make_unique<ParameterLayout>(config_.model, kPixels);
        backend_ = make_cpu_double_backend(config_, *layout_);
        backend_->set_data(splits_);
    }

    float& parameter(std::vector<float>& arena, const Tensor& tensor, std::size_t i) const {
        return arena.at(tensor.offset + i);
    }

    void use(std::vector<float> parameters) {
        backend_->set_state(start_state(TrainConfig(), std::move(parameters)));
        const auto exact = backend_->exact_parameters();
        model_.sigma = config_.model.sigma;
        model_.b.resize(kPixels);
        for (std::size_t i = 0; i < kPixels; ++i) {
            model_.b[i] = exact[layout_->output.bias.offset + i];
            for (std::size_t l = 0; l < kLatent; ++l) {
                model_.w[i][l] = exact[layout_->output.weight.offset + i * kLatent + l];
            }
        }
    }

    std::vector<float> random_parameters() const {
        return initial_parameters(*layout_, Initialization::glorot, 3);
    }

    // An encoder that gives the exact posterior, which is diagonal because the columns of W are
    // orthogonal.
    std::vector<float> tight_parameters() {
        std::vector<float> arena(layout_->arena_size, 0.0F);
        const std::array<float, kPixels> first = {1, .5F, -.25F, .5F, 0};
        const std::array<float, kPixels> second = {.5F, -1, .5F, .25F, 2};
        for (std::size_t i = 0; i < kPixels; ++i) {
            parameter(arena, layout_->output.weight, i * kLatent) = first[i];
            parameter(arena, layout_->output.weight, i * kLatent + 1) = second[i];
            parameter(arena, layout_->output.bias, i) = .25F;
        }
        use(arena);
        const Matrix covariance = model_.covariance();
        EXPECT_NEAR(covariance[0][1], 0, 1e-15);
        const double sigma2 = model_.sigma * model_.sigma;
        for (std::size_t l = 0; l < kLatent; ++l) {
            double offset = 0;
            for (std::size_t i = 0; i < kPixels; ++i) {
                const double weight = covariance[l][l] * model_.w[i][l] / sigma2;
                const auto rounded = static_cast<float>(weight);
                parameter(arena, layout_->heads.mu_weight, l * kPixels + i) = rounded;
                offset -= weight * model_.b[i];
            }
            parameter(arena, layout_->heads.mu_bias, l) = static_cast<float>(offset);
            parameter(arena, layout_->heads.logvar_bias, l) =
                static_cast<float>(std::log(covariance[l][l]));
        }
        return arena;
    }

    Trace trace(std::uint64_t step) { return backend_->trace({step, rows_, kBatch, {{0, 1}}}); }

    static std::vector<double> row(const Trace& trace, const char* name, std::size_t r) {
        const TracedTensor& tensor = test::find(trace, name);
        const std::size_t cols = tensor.values.size() / tensor.shape.at(0);
        const auto begin = tensor.values.begin() + static_cast<std::ptrdiff_t>(r * cols);
        return {begin, begin + static_cast<std::ptrdiff_t>(cols)};
    }

    // E_q[recon] without sampling error: with a linear decoder recon is exactly
    //     c + g·epsilon + ½ epsilonᵀ H epsilon,
    // so six draws of the backend fix the coefficients and the expectation is c + ½ tr H. All
    // draws are fitted by least squares, and each must lie on the quadratic.
    double expected_recon(const std::vector<Trace>& traces, std::size_t r) {
        constexpr std::size_t kTerms = 6;
        const auto terms = [](const std::vector<double>& e) {
            return std::array<double, kTerms>{1,           e[0],           e[1], e[0] * e[0] / 2,
                                              e[0] * e[1], e[1] * e[1] / 2};
        };
        Matrix normal = zeros(kTerms, kTerms);
        std::vector<double> right(kTerms, 0.0);
        for (const Trace& draw : traces) {
            const auto t = terms(row(draw, "epsilon", r));
            for (std::size_t i = 0; i < kTerms; ++i) {
                for (std::size_t j = 0; j < kTerms; ++j) normal[i][j] += t[i] * t[j];
                right[i] += t[i] * row(draw, "recon", r)[0];
            }
        }
        const auto coefficients = solve(normal, right).first;
        for (const Trace& draw : traces) {
            const auto t = terms(row(draw, "epsilon", r));
            double fitted = 0;
            for (std::size_t i = 0; i < kTerms; ++i) fitted += coefficients[i] * t[i];
            EXPECT_NEAR(row(draw, "recon", r)[0], fitted, kFit);
        }
        return coefficients[0] + (coefficients[3] + coefficients[5]) / 2;
    }

    // The ELBO is the evidence.
    void expect_tight() {
        std::vector<Trace> traces;
        for (std::uint64_t step = 0; step < kDraws; ++step) traces.push_back(trace(step));
        for (std::size_t r = 0; r < kBatch; ++r) {
            const auto x = row(traces[0], "x", r);
            const double elbo = -(expected_recon(traces, r) + row(traces[0], "kl", r)[0]);
            EXPECT_NEAR(elbo, model_.evidence(x), kFit);
        }
    }

    // The normal equations square the condition number of the draws, here below 1e3.
    static constexpr double kFit = 1e-10;

    Config config_;
    Splits splits_;
    std::unique_ptr<ParameterLayout> layout_;
    std::unique_ptr<Backend> backend_;
    LinearModel model_;
    std::vector<std::uint32_t> rows_ = test::first_rows(kBatch);
};

// log p(x|z) + log p(z) − log p(z|x) = log p(x) at the very z that was drawn.
TEST_F(LinearGaussian, BayesHoldsAtEverySample) {
    use(random_parameters());
    const Matrix prior = {{1, 0}, {0, 1}};
    for (std::uint64_t step = 0; step < 5; ++step) {
        const Trace drawn = trace(step);
        for (std::size_t r = 0; r < kBatch; ++r) {
            const auto x = row(drawn, "x", r);
            const auto z = row(drawn, "z", r);
            const double log_likelihood = -row(drawn, "recon", r)[0];
            const double log_prior = log_normal(z, {0, 0}, prior);
            const double log_posterior =
                log_normal(z, model_.posterior_mean(x), model_.covariance());
            EXPECT_NEAR(log_likelihood + log_prior - log_posterior, model_.evidence(x), kRounding);
        }
    }
}

// ELBO + KL(q ‖ posterior) = log p(x) for an encoder that is far from the posterior.
TEST_F(LinearGaussian, ElboAndItsGapAddUpToTheEvidence) {
    use(random_parameters());
    std::vector<Trace> traces;
    for (std::uint64_t step = 0; step < kDraws; ++step) traces.push_back(trace(step));
    for (std::size_t r = 0; r < kBatch; ++r) {
        const auto x = row(traces[0], "x", r);
        const double gap =
            model_.kl_to_posterior(x, row(traces[0], "mu", r), row(traces[0], "logvar", r));
        const double elbo = -(expected_recon(traces, r) + row(traces[0], "kl", r)[0]);
        EXPECT_GT(gap, .1);  // else the test would not see it
        EXPECT_NEAR(elbo + gap, model_.evidence(x), kFit);
    }
}

// With the exact posterior as encoder, the ELBO is the evidence. Parameters are floats, so the
// encoder is off by 1e-7, which the ELBO feels only in second order.
TEST_F(LinearGaussian, ElboOfTheExactPosteriorIsTheEvidence) {
    use(tight_parameters());
    expect_tight();
}

// log p(x) by importance sampling: the evidence, within its own standard error, and bounds that
// rise to it from the ELBO.
TEST_F(LinearGaussian, ImportanceSamplingFindsTheEvidence) {
    use(random_parameters());
    constexpr std::uint32_t kImportanceDraws = 50000;
    const DrawRequest request = {
        .split = Split::train, .rows = rows_, .draws = kImportanceDraws, .seed = 11};
    const ImportanceEstimate estimate = importance_sampling(*backend_, request);
    std::vector<double> log_weights;
    backend_->draw(request, [&](const DrawBlock& block) {
        for (std::size_t i = 0; i < block.recon.size(); ++i) {
            log_weights.push_back(-block.recon[i] - block.log_ratio[i]);
        }
    });
    const Trace drawn = trace(0);
    double evidence = 0;
    double elbo = 0;
    for (std::size_t r = 0; r < kBatch; ++r) {
        const auto x = row(drawn, "x", r);
        const double exact = model_.evidence(x);
        evidence += exact / kBatch;
        elbo += (exact - model_.kl_to_posterior(x, row(drawn, "mu", r), row(drawn, "logvar", r))) /
                kBatch;
        // Four standard errors: one seed in 4000 would miss for four examples.
        EXPECT_NEAR(estimate.log_px[r], exact, 4 * estimate.error[r]);
        EXPECT_LT(estimate.error[r], 0.05);
        EXPECT_LT(estimate.effective_draws[r], .9 * kImportanceDraws);  // q is not the posterior
    }
    EXPECT_NEAR(estimate.mean(), evidence, 4 * estimate.monte_carlo_error());
    ASSERT_EQ(estimate.bounds.size(), 10U);
    // Deviations within an example and between examples: more than the first alone.
    const double error = error_of_mean(log_weights);
    EXPECT_LT(error, .02);
    EXPECT_NEAR(estimate.bounds[0].mean, elbo, 4 * error);
    for (std::size_t i = 1; i < estimate.bounds.size(); ++i) {
        EXPECT_GT(estimate.bounds[i].mean, estimate.bounds[i - 1].mean - .002);
    }
    EXPECT_GT(estimate.bounds[3].mean, estimate.bounds[0].mean + .05);
    EXPECT_LT(estimate.bounds[3].mean, evidence);  // k = 50
    EXPECT_NEAR(estimate.bounds.back().mean, evidence, .02);
}

// With the exact posterior every weight is the evidence, whatever the draw.
TEST_F(LinearGaussian, WeightsOfTheExactPosteriorAreAllTheEvidence) {
    use(tight_parameters());
    const ImportanceEstimate estimate = importance_sampling(
        *backend_, {.split = Split::train, .rows = rows_, .draws = 100, .seed = 11});
    const Trace drawn = trace(0);
    for (std::size_t r = 0; r < kBatch; ++r) {
        // The encoder's floats are off by 1e-7 in the first order of each weight.
        EXPECT_NEAR(estimate.log_px[r], model_.evidence(row(drawn, "x", r)), 1e-6);
        EXPECT_NEAR(estimate.effective_draws[r], 100, 1e-6);
    }
}

// With a full covariance an encoder can give the exact posterior of any W.
class FullLinearGaussian : public LinearGaussian {
  protected:
    explicit FullLinearGaussian(const ObjectiveConfig& objective = {})
        : LinearGaussian(PosteriorCovariance::full, objective) {}

    std::vector<float> tight_parameters() {
        std::vector<float> arena = random_parameters();
        use(arena);
        const Heads& heads = layout_->heads;
        for (const Tensor& tensor : heads.tensors()) {
            std::fill_n(arena.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size, 0);
        }
        const Matrix covariance = model_.covariance();
        EXPECT_GT(std::abs(covariance[1][0]), .05);  // no diagonal posterior is exact
        const double sigma2 = model_.sigma * model_.sigma;
        for (std::size_t l = 0; l < kLatent; ++l) {
            double offset = 0;
            for (std::size_t i = 0; i < kPixels; ++i) {
                double weight = 0;
                for (std::size_t k = 0; k < kLatent; ++k) {
                    weight += covariance[l][k] * model_.w[i][k] / sigma2;
                }
                parameter(arena, heads.mu_weight, l * kPixels + i) = static_cast<float>(weight);
                offset -= weight * model_.b[i];
            }
            parameter(arena, heads.mu_bias, l) = static_cast<float>(offset);
        }
        const auto [first, below, second] = model_.cholesky();
        parameter(arena, heads.logvar_bias, 0) = static_cast<float>(2 * std::log(first));
        parameter(arena, heads.logvar_bias, 1) = static_cast<float>(2 * std::log(second));
        parameter(arena, heads.tril_bias, 0) = static_cast<float>(below);
        return arena;
    }
};

TEST_F(FullLinearGaussian, ElboOfTheExactPosteriorIsTheEvidence) {
    use(tight_parameters());
    expect_tight();
}

class FullLinearIwae : public FullLinearGaussian {
  protected:
    FullLinearIwae() : FullLinearGaussian({.bound = Bound::iwae, .samples = 4}) {}
};

// log p(x|z) + log p(z) − log q(z|x) = log p(x) at every draw, if q is the posterior. The encoder's
// parameters are off by their rounding to float, which a draw feels in first order.
TEST_F(FullLinearIwae, EveryDrawOfTheExactPosteriorWeighsTheEvidence) {
    use(tight_parameters());
    const Trace drawn = trace(0);
    for (std::size_t r = 0; r < kBatch; ++r) {
        const double evidence = model_.evidence(row(drawn, "x", r));
        const auto recon = row(drawn, "recon.draws", r);
        const auto ratio = row(drawn, "log_ratio", r);
        ASSERT_EQ(recon.size(), 4U);
        for (std::size_t s = 0; s < 4; ++s) EXPECT_NEAR(-recon[s] - ratio[s], evidence, 1e-5);
    }
}

}  // namespace
}  // namespace vae
