// Training a linear VAE with one learned sigma reaches the optimum of probabilistic PCA (Tipping &
// Bishop 1999, section 3.2), which an eigen-decomposition of the data's covariance gives:
//     b = mean, sigma² = mean of the D − Z least eigenvalues,
//     W = U (Λ − sigma²·I)^½ R for any rotation R, U the first Z eigenvectors.
// There the exact posterior is diagonal for some R, and the ELBO is the evidence (Lucas et al.
// 2019).
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numbers>

#include "host/backend.h"
#include "host/output_layer.h"
#include "host/synthetic.h"
#include "tests/linear_algebra.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

using test::Eigen;
using test::Matrix;
using test::zeros;

constexpr std::size_t kPixels = 8;
constexpr std::size_t kLatent = 2;
constexpr std::uint64_t kSteps = 3000;
constexpr std::uint32_t kBatch = 500;

TEST(EigenOf, TakesAMatrixApart) {
    const Matrix a = {{4, 1, -2}, {1, 3, 0.5}, {-2, 0.5, 1}};
    const Eigen eigen = test::eigen_of(a);
    ASSERT_GT(eigen.values[0], eigen.values[1]);
    ASSERT_GT(eigen.values[1], eigen.values[2]);
    for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t j = 0; j < 3; ++j) {
            double product = 0;
            double rebuilt = 0;
            for (std::size_t k = 0; k < 3; ++k) {
                product += eigen.vectors[i][k] * eigen.vectors[j][k];
                rebuilt += eigen.values[k] * eigen.vectors[k][i] * eigen.vectors[k][j];
            }
            EXPECT_NEAR(product, i == j ? 1 : 0, 1e-14);
            EXPECT_NEAR(rebuilt, a[i][j], 1e-14);
        }
    }
}

struct Moments {
    std::vector<double> mean = std::vector<double>(kPixels, 0.0);
    Matrix covariance = zeros(kPixels, kPixels);

    explicit Moments(const Dataset& data) {
        const auto& x = std::get<FloatValues>(data.values);
        const auto size = static_cast<double>(data.size);
        for (std::size_t i = 0; i < x.size(); ++i) {
            mean[i % kPixels] += static_cast<double>(x[i]) / size;
        }
        for (std::size_t n = 0; n < data.size; ++n) {
            for (std::size_t i = 0; i < kPixels; ++i) {
                for (std::size_t j = 0; j < kPixels; ++j) {
                    covariance[i][j] += (static_cast<double>(x[n * kPixels + i]) - mean[i]) *
                                        (static_cast<double>(x[n * kPixels + j]) - mean[j]) / size;
                }
            }
        }
    }
};

// Mean over the data of log N(x; b, C), from their moments.
double mean_evidence(const Moments& moments, const std::vector<double>& b, const Matrix& c) {
    double sum = static_cast<double>(kPixels) * std::log(2 * std::numbers::pi);
    std::vector<double> offset(kPixels);
    for (std::size_t i = 0; i < kPixels; ++i) offset[i] = moments.mean[i] - b[i];
    for (std::size_t i = 0; i < kPixels; ++i) {
        std::vector<double> column(kPixels);
        for (std::size_t k = 0; k < kPixels; ++k) {
            column[k] = moments.covariance[k][i] + offset[k] * offset[i];
        }
        const auto [solution, log_det] = test::solve(c, column);
        sum += solution[i];  // the trace of C⁻¹ S
        if (i == 0) sum += log_det;
    }
    return -sum / 2;
}

class Ppca : public testing::TestWithParam<Variance> {
  protected:
    Ppca() {
        config_.model.encoder_hidden = {};
        config_.model.decoder_hidden = {};
        config_.model.latent = kLatent;
        config_.model.likelihood = Likelihood::gaussian;
        config_.model.variance = GetParam();
        config_.train.batch = kBatch;
        splits_.train = synthetic_set("linear-gaussian").train;
        layout_ = std::make_unique<ParameterLayout>(config_.model, kPixels);
        backend_ = make_cpu_backend(config_, *layout_);
        backend_->set_data(splits_);
        backend_->set_state(test::initial_state(*layout_, config_));
    }

    // The learning rate falls to zero, so that what is left is the optimum and no noise of steps.
    void train() {
        std::vector<std::uint32_t> rows;
        TrainRequest request;
        request.batch = kBatch;
        for (std::uint64_t step = 0; step < kSteps; ++step) {
            const double done = static_cast<double>(step) / kSteps;
            request.schedule.push_back({.01 * (1 + std::cos(std::numbers::pi * done)), 1});
            for (std::uint32_t i = 0; i < kBatch; ++i) {
                rows.push_back(
                    static_cast<std::uint32_t>((step * kBatch + i) % splits_.train.size));
            }
        }
        request.rows = rows;
        backend_->train(request);
        EXPECT_EQ(backend_->take_totals().skipped.count, 0U);
    }

    Config config_;
    Splits splits_;
    std::unique_ptr<ParameterLayout> layout_;
    std::unique_ptr<Backend> backend_;
};

TEST_P(Ppca, TrainingReachesTheOptimum) {
    train();
    const auto parameters = backend_->exact_parameters();
    std::vector<double> b(kPixels);
    Matrix w = zeros(kPixels, kLatent);
    for (std::size_t i = 0; i < kPixels; ++i) {
        b[i] = parameters[layout_->output.bias.offset + i];
        for (std::size_t l = 0; l < kLatent; ++l) {
            w[i][l] = parameters[layout_->output.weight.offset + i * kLatent + l];
        }
    }
    const double raw = parameters[layout_->output_logvar.offset];
    const double variance =
        std::exp(GetParam() == Variance::shared ? bounded(raw, log_bounds(config_.model)) : raw);

    const Moments moments(splits_.train);
    const Eigen eigen = test::eigen_of(moments.covariance);
    double best_variance = 0;
    for (std::size_t i = kLatent; i < kPixels; ++i) {
        best_variance += eigen.values[i] / (kPixels - kLatent);
    }
    Matrix best = zeros(kPixels, kPixels);
    Matrix reached = zeros(kPixels, kPixels);
    for (std::size_t i = 0; i < kPixels; ++i) {
        for (std::size_t j = 0; j < kPixels; ++j) {
            for (std::size_t l = 0; l < kLatent; ++l) {
                best[i][j] +=
                    (eigen.values[l] - best_variance) * eigen.vectors[l][i] * eigen.vectors[l][j];
                reached[i][j] += w[i][l] * w[j][l];
            }
        }
        best[i][i] += best_variance;
        reached[i][i] += variance;
    }
    // The optimum is flat: what steps leave of noise in the parameters is squared here.
    const double optimum = mean_evidence(moments, moments.mean, best);
    const double evidence = mean_evidence(moments, b, reached);
    EXPECT_LE(evidence, optimum + 1e-10);
    EXPECT_NEAR(evidence, optimum, 2e-3);
    EXPECT_NEAR(std::sqrt(variance / best_variance), 1, .01);
    // W's part outside the principal subspace: the sine of the largest angle between the two.
    for (std::size_t l = 0; l < kLatent; ++l) {
        double inside = 0;
        double all = 0;
        for (std::size_t k = 0; k < kLatent; ++k) {
            double dot = 0;
            for (std::size_t i = 0; i < kPixels; ++i) dot += eigen.vectors[k][i] * w[i][l];
            inside += dot * dot;
        }
        for (std::size_t i = 0; i < kPixels; ++i) all += w[i][l] * w[i][l];
        EXPECT_LT(std::sqrt(1 - inside / all), .02);
    }
    // The bound is tight there, within the error of 6000 draws.
    const LossTotals totals = backend_->evaluate(Split::train, 1);
    EXPECT_NEAR(-(totals.recon + totals.kl) / static_cast<double>(totals.examples), optimum, .03);
}

INSTANTIATE_TEST_SUITE_P(Variances, Ppca, testing::Values(Variance::shared, Variance::optimal),
                         [](const auto& test_case) {
                             return test_case.param == Variance::shared ? "shared" : "optimal";
                         });

}  // namespace
}  // namespace vae
