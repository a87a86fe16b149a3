// The posterior with a full covariance on the CPU: its operations against plain formulas, and the
// model with nothing below the diagonal against that of a diagonal covariance.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/cpu/cholesky_posterior.h"
#include "host/cpu/chunks.h"
#include "host/noise.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kRows = cpu::kChunkRows + 3;  // a whole chunk and a ragged one
constexpr std::size_t kSamples = 2;

template <class T>
std::vector<T> normals(std::size_t size, std::uint32_t which, double scale = 1) {
    std::vector<double> values(size);
    fill_normal({3, Purpose::synthetic_data, 0, which, 0}, values);
    // Through float, so that both precisions start from the same numbers.
    std::vector<T> result;
    result.reserve(size);
    for (const double value : values) {
        result.push_back(static_cast<T>(static_cast<float>(scale * value)));
    }
    return result;
}

// Both operations on the same inputs in T.
template <class T>
struct BothWays {
    explicit BothWays(std::size_t width, bool has_prior = false) : latent(width) {
        const std::size_t tril_size = latent * (latent - 1) / 2;
        const std::size_t stride = (latent + 7) / 8 * 8;
        const std::size_t tril_stride = (tril_size + 7) / 8 * 8;
        const std::size_t pitch = 2 * stride + tril_stride;
        const double scale = 0.5 / std::sqrt(static_cast<double>(latent));
        product = normals<T>(kRows * pitch, 1, scale);
        mu_bias = normals<T>(latent, 2);
        logvar_bias = normals<T>(latent, 3, 0.3);
        tril_bias = normals<T>(tril_size, 4, scale);
        epsilon = normals<T>(kRows * kSamples * latent, 5);
        const auto d_z = normals<T>(epsilon.size(), 6);
        const auto path = normals<T>(kRows * kSamples, 7);
        const auto ratio = normals<T>(kRows * kSamples, 8);
        const auto score = normals<T>(kRows * kSamples, 9);
        const std::vector<T> kl_mask(latent, T(1));
        for (auto* array : {&mu, &logvar}) array->resize(kRows * latent);
        tril.resize(kRows * tril_size);
        z.resize(epsilon.size());
        kl.resize(kRows);
        for (auto* array : {&log_ratio, &log_q}) array->resize(kRows * kSamples);
        const cpu::CholeskyHeads<T> heads{{product.data(), mu_bias.data(), logvar_bias.data(),
                                           kRows, kSamples, latent, stride, T(-1), T(1)},
                                          tril_bias.data(),
                                          tril_stride};
        cpu::cholesky_forward(heads, epsilon.data(),
                              cpu::CholeskyDraws<T>{mu.data(), logvar.data(), tril.data(), z.data(),
                                                    kl.data(), log_ratio.data(), log_q.data()});
        // The prior's own score, given in place of what stands for it.
        std::vector<T> prior_score;
        for (const T value : z) prior_score.push_back(-value);
        d_product.assign(kRows * pitch, T(7));
        std::vector<T> d_mu_bias(latent);
        std::vector<T> d_logvar_bias(latent);
        d_tril_bias.resize(tril_size);
        std::vector<T> partials(cpu::chunk_count(kRows) * pitch);
        std::vector<T> draw(cpu::chunk_count(kRows) * 2 * latent);
        cpu::cholesky_backward(
            heads,
            cpu::CholeskySaved<T>{epsilon.data(), mu.data(), logvar.data(), tril.data(), z.data()},
            cpu::LatentGradient<T>{.d_z = d_z.data(),
                                   .path = path.data(),
                                   .ratio = ratio.data(),
                                   .score = score.data(),
                                   .prior_score = has_prior ? prior_score.data() : nullptr,
                                   .scale = 0.6,
                                   .kl_scale = 0.4,
                                   .kl_mask = kl_mask.data()},
            cpu::CholeskyGradients<T>{d_product.data(), d_mu_bias.data(), d_logvar_bias.data(),
                                      d_tril_bias.data(), partials.data(), draw.data()});
    }

    // L of example b, with the diagonal.
    double l(std::size_t b, std::size_t i, std::size_t j) const {
        if (i == j) return std::exp(static_cast<double>(logvar[b * latent + i]) / 2);
        return static_cast<double>(tril[b * latent * (latent - 1) / 2 + i * (i - 1) / 2 + j]);
    }

    std::vector<std::vector<double>> results() const {
        const auto widened = [](const std::vector<T>& values) {
            return std::vector<double>(values.begin(), values.end());
        };
        return {widened(z),     widened(kl),        widened(log_ratio),
                widened(log_q), widened(d_product), widened(d_tril_bias)};
    }

    std::size_t latent;
    std::vector<T> product, mu_bias, logvar_bias, tril_bias, epsilon;
    std::vector<T> mu, logvar, tril, z, kl, log_ratio, log_q, d_product, d_tril_bias;
};

class CholeskyOperation : public testing::TestWithParam<std::size_t> {};

INSTANTIATE_TEST_SUITE_P(Latents, CholeskyOperation,
                         testing::Values(1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 101));

// log q from L alone, by solving L e = z − mu; log p and the divergence from their definitions.
TEST_P(CholeskyOperation, DensitiesAreThoseOfTheirFormulas) {
    const std::size_t latent = GetParam();
    const BothWays<double> run(latent);
    const double log_2_pi = std::log(2 * std::numbers::pi);
    for (std::size_t r = 0; r < kRows * kSamples; ++r) {
        const std::size_t b = r / kSamples;
        double twice_kl = 0;
        double log_q = 0;
        double log_p = 0;
        std::vector<double> e(latent);
        for (std::size_t i = 0; i < latent; ++i) {
            const double z = run.z[r * latent + i];
            e[i] = z - run.mu[b * latent + i];
            double variance = 0;
            for (std::size_t j = 0; j <= i; ++j) {
                variance += run.l(b, i, j) * run.l(b, i, j);
                if (j < i) e[i] -= run.l(b, i, j) * e[j];
            }
            e[i] /= run.l(b, i, i);
            log_q -= (e[i] * e[i] + log_2_pi) / 2 + std::log(run.l(b, i, i));
            log_p -= (z * z + log_2_pi) / 2;
            const double mu = run.mu[b * latent + i];
            twice_kl += mu * mu + variance - 1 - 2 * std::log(run.l(b, i, i));
        }
        // Sums of some hundred terms of order one, through a solution of small condition.
        EXPECT_NEAR(run.log_q[r], log_q, 1e-11);
        EXPECT_NEAR(run.log_ratio[r], log_q - log_p, 1e-11);
        EXPECT_NEAR(run.kl[b], twice_kl / 2, 1e-11);
    }
}

TEST_P(CholeskyOperation, FloatAgreesWithDouble) {
    const BothWays<float> single(GetParam());
    const BothWays<double> exact(GetParam());
    constexpr double kGate = 1e-5;  // the project's for FP32
    const auto got = single.results();
    const auto want = exact.results();
    for (std::size_t i = 0; i < want.size(); ++i) {
        if (want[i].empty()) continue;  // nothing below the diagonal of one number
        EXPECT_LE(test::relative_l2(got[i], want[i]), kGate) << i;
    }
}

TEST_P(CholeskyOperation, APriorScoreTakesThePlaceOfThatOfTheStandardNormal) {
    EXPECT_EQ(BothWays<double>(GetParam(), true).d_product, BothWays<double>(GetParam()).d_product);
}

// The model whose parameters of tril are zero, and the diagonal one with the others.
TEST(FullCovariance, WithAZeroTrilIsTheDiagonalModel) {
    for (const ObjectiveConfig& objective :
         {ObjectiveConfig{}, ObjectiveConfig{.kl = KlTerm::sampled, .samples = 3},
          ObjectiveConfig{.bound = Bound::iwae, .samples = 3},
          ObjectiveConfig{.samples = 2, .gradient = EncoderGradient::score}}) {
        Config config;
        config.model.encoder_hidden = {6};
        config.model.decoder_hidden = {5};
        config.model.latent = 4;
        config.model.activation = Activation::tanh;
        config.objective = objective;
        Splits splits;
        splits.train = test::random_floats(13, 7);
        const ParameterLayout diagonal(config.model, 7);
        const TrainingState of_diagonal = test::initial_state(diagonal, config);
        Config full_config = config;
        full_config.model.posterior = PosteriorCovariance::full;
        const ParameterLayout full(full_config.model, 7);
        TrainingState of_full = start_state(config.train, std::vector<float>(full.arena_size));
        for (const Tensor& from : diagonal.tensors()) {
            for (const Tensor& to : full.tensors()) {
                if (to.name != from.name) continue;
                std::copy_n(
                    of_diagonal.parameters.begin() + static_cast<std::ptrdiff_t>(from.offset),
                    from.size, of_full.parameters.begin() + static_cast<std::ptrdiff_t>(to.offset));
            }
        }
        const auto trace_of = [&](const Config& of, const ParameterLayout& layout,
                                  const TrainingState& state) {
            const auto backend = make_cpu_double_backend(of, layout);
            backend->set_data(splits);
            backend->set_state(state);
            const auto rows = test::first_rows(13);
            return backend->trace({0, rows, 13, {{0, 0.7}}});
        };
        const Trace want = trace_of(config, diagonal, of_diagonal);
        const Trace got = trace_of(full_config, full, of_full);
        EXPECT_EQ(got.size(), want.size() + 3);  // tril and its two gradients
        for (const TracedTensor& tensor : want) {
            EXPECT_LE(test::relative_l2(test::find(got, tensor.name).values, tensor.values), 1e-13)
                << tensor.name;
        }
        // It is no place where training would stay.
        const auto& gradient = test::find(got, "grad.encoder.tril.weight").values;
        EXPECT_GT(std::abs(*std::max_element(gradient.begin(), gradient.end())), 1e-3);
    }
}

}  // namespace
}  // namespace vae
