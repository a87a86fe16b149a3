// Learned priors on the CPU: what their densities are, where they start, and what is drawn from
// them. Their gradients are in finite_difference_test.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/cpu/mixture_prior.h"
#include "host/prior_sampler.h"
#include "host/pseudo_inputs.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 6;
constexpr std::uint32_t kBatch = 5;

Config small_config(Prior prior, const ObjectiveConfig& objective = {}) {
    Config config;
    config.model.encoder_hidden = {7, 5};
    config.model.decoder_hidden = {6};
    config.model.activation = Activation::tanh;
    config.model.latent = 3;
    config.model.initialization = Initialization::glorot;
    config.model.prior = prior;
    config.model.prior_components = 4;
    config.objective = objective;
    config.train.batch = kBatch;
    return config;
}

struct Model {
    explicit Model(const Config& given, bool is_double = true)
        : config(given),
          layout(given.model, kPixels),
          backend(is_double ? make_cpu_double_backend(given, layout)
                            : make_cpu_backend(given, layout)),
          state(test::initial_state(layout, given)) {
        splits.train = test::random_floats(20, kPixels);
        splits.test = test::random_floats(9, kPixels, 20);
        backend->set_data(splits);
        backend->set_state(state);
    }

    std::span<float> values_of(const Tensor& tensor) {
        return std::span(state.parameters).subspan(tensor.offset, tensor.size);
    }
    Trace trace() {
        const auto rows = test::first_rows(kBatch);
        return backend->trace({3, rows, kBatch, {{0, 0.7}}});
    }

    Config config;
    ParameterLayout layout;
    std::unique_ptr<Backend> backend;
    TrainingState state;
    Splits splits;
};

// log p and its derivative of a mixture in one dimension.
struct Line {
    std::vector<double> mean = {-3, 0.5, 2};
    std::vector<double> logvar = {0.3, -9, 1.5};  // the second is clamped to −2
    std::vector<double> logits = {0.2, -1, 1};
    std::vector<double> own_mean = std::vector<double>(3);
    std::vector<double> inverse_sigma = own_mean;
    std::vector<double> excess = own_mean;
    std::vector<double> offset = own_mean;
    std::vector<double> log_weight = own_mean;

    struct Point {
        double log_p = 0;
        double score = 0;
    };
    Point at(double z) {
        const cpu::MixtureSource<double> source{.mean = mean.data(),
                                                .logvar = logvar.data(),
                                                .row_stride = 1,
                                                .logits = logits.data(),
                                                .components = 3,
                                                .latent = 1,
                                                .logvar_min = -2,
                                                .logvar_max = 2};
        const cpu::MixtureComponents<double> components{
            own_mean.data(), inverse_sigma.data(), excess.data(), offset.data(), log_weight.data()};
        cpu::mixture_components(source, components);
        Point point;
        double relative = 0;
        double gamma[3];
        cpu::mixture_forward(source, components, &z, 1,
                             cpu::MixtureOutputs<double>{
                                 .relative = &relative, .score = &point.score, .gamma = gamma});
        point.log_p = relative - (z * z + 1.8378770664093454836) / 2;
        return point;
    }
};

// The trapezoidal rule is exact to rounding for a smooth function that is zero at both ends, as
// long as the step is far below the narrowest width, exp(−1).
TEST(CpuPrior, DensityIntegratesToOne) {
    Line line;
    constexpr double kStep = 0.01;
    double total = 0;
    for (int i = -4000; i <= 4000; ++i) total += kStep * std::exp(line.at(i * kStep).log_p);
    EXPECT_NEAR(total, 1, 1e-12);
}

TEST(CpuPrior, ScoreIsTheDerivative) {
    Line line;
    constexpr double kStep = 1e-5;  // its square times a third derivative of about 10
    for (const double z : {-20.0, -3.0, -1.0, 0.5, 0.9, 30.0}) {
        const double difference =
            (line.at(z + kStep).log_p - line.at(z - kStep).log_p) / (2 * kStep);
        EXPECT_NEAR(line.at(z).score, difference, 1e-8 * (1 + std::abs(difference))) << z;
    }
}

// A mixture whose components are all N(0, I) is the normal prior, whatever their weights: the same
// ratios, losses and gradients, to the rounding of sums.
TEST(CpuPrior, EqualComponentsAreTheNormalPrior) {
    const std::vector<ObjectiveConfig> objectives = {
        {.samples = 3},
        {.bound = Bound::iwae, .samples = 4},
        {.bound = Bound::iwae, .samples = 4, .gradient = EncoderGradient::dreg},
        {.samples = 3, .gradient = EncoderGradient::score, .baseline = Baseline::leave_one_out}};
    for (ObjectiveConfig objective : objectives) {
        objective.kl = KlTerm::sampled;
        Model normal(small_config(Prior::normal, objective));
        Model mixture(small_config(Prior::mixture, objective));
        std::ranges::fill(mixture.values_of(mixture.layout.prior_mean), 0.0F);
        fill_normal({1, Purpose::synthetic_data, 0, 0},
                    mixture.values_of(mixture.layout.prior_logits));
        mixture.backend->set_state(mixture.state);
        const Trace of_mixture = mixture.trace();
        for (const TracedTensor& wanted : normal.trace()) {
            const auto& got = test::find(of_mixture, wanted.name).values;
            EXPECT_LT(test::relative_l2(got, wanted.values), 1e-12) << wanted.name;
        }
        for (const double d : test::find(of_mixture, "grad.prior.logits").values) {
            EXPECT_NEAR(d, 0, 1e-14);
        }
    }
}

// Next to what float itself is off by, 1e-5 is the gate of a comparison.
TEST(CpuPrior, FloatAgreesWithDouble) {
    for (const Prior prior : {Prior::mixture, Prior::vamp}) {
        for (const std::uint32_t samples : {1U, 3U}) {
            const Config config = small_config(prior, {.samples = samples});
            const Trace wanted = Model(config).trace();
            const Trace got = Model(config, false).trace();
            for (const TracedTensor& tensor : wanted) {
                EXPECT_LT(test::relative_l2(test::find(got, tensor.name).values, tensor.values),
                          1e-5)
                    << tensor.name;
            }
        }
    }
}

// The components of a VampPrior are the posteriors of its pseudo-inputs: as a mixture of those it
// has the same log p.
TEST(CpuPrior, VampPriorIsTheMixtureOfItsPosteriors) {
    Model vamp(small_config(Prior::vamp));
    Model mixture(small_config(Prior::mixture));
    const Tensor& inputs = vamp.layout.pseudo_inputs;
    const Posterior components = vamp.backend->encode(vamp.values_of(inputs));
    std::ranges::copy(components.mu, mixture.values_of(mixture.layout.prior_mean).begin());
    std::ranges::copy(components.logvar, mixture.values_of(mixture.layout.prior_logvar).begin());
    mixture.backend->set_state(mixture.state);
    const Trace wanted = vamp.trace();
    const Trace got = mixture.trace();
    for (const char* name : {"z", "log_ratio", "kl", "loss", "grad.decoder.0.weight"}) {
        // Components went through float.
        EXPECT_LT(test::relative_l2(test::find(got, name).values, test::find(wanted, name).values),
                  1e-6)
            << name;
    }
}

TEST(CpuPrior, KlIsEstimatedUnlessThePriorIsNormal) {
    EXPECT_EQ(effective_objective(small_config(Prior::normal)).kl, KlTerm::analytic);
    for (const Prior prior : {Prior::mixture, Prior::vamp}) {
        Model model(small_config(prior, {.samples = 2}));
        EXPECT_EQ(effective_objective(model.config).kl, KlTerm::sampled);
        const Trace trace = model.trace();
        const auto& ratio = test::find(trace, "log_ratio").values;
        const auto& kl = test::find(trace, "kl").values;
        for (std::size_t b = 0; b < kBatch; ++b) {
            EXPECT_NEAR(kl[b], (ratio[2 * b] + ratio[2 * b + 1]) / 2, 1e-13);
        }
    }
}

// Training keeps what is padding zero, moves every parameter of the prior, and lowers the loss.
TEST(CpuPrior, Trains) {
    for (const Prior prior : {Prior::mixture, Prior::vamp}) {
        for (const Activation activation : {Activation::tanh, Activation::gated}) {
            Config config = small_config(prior);
            config.model.activation = activation;
            Model model(config, false);
            const double before = model.backend->evaluate(Split::train, 1).loss;
            const auto rows = test::first_rows(20);
            for (std::uint64_t step = 0; step < 400; step += 4) {
                model.backend->train({step, rows, kBatch, {{0.01, 1}}});
            }
            EXPECT_LT(model.backend->evaluate(Split::train, 1).loss, before);
            const std::vector<float> after = model.backend->state().parameters;
            for (const float value : test::padding_of(model.layout, after)) EXPECT_EQ(value, 0);
            for (const Tensor& tensor : model.layout.tensors()) {
                if (!tensor.name.starts_with("prior")) continue;
                for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
                    EXPECT_NE(after[i], model.state.parameters[i]) << tensor.name;
                }
            }
        }
    }
}

TEST(PseudoInputs, StartAtDifferentExamplesWithALittleNoise) {
    Config config = small_config(Prior::vamp);
    config.model.prior_components = 12;
    Model model(config);
    set_pseudo_inputs(model.layout, model.splits.train, 3, model.state.parameters);
    const auto inputs = model.values_of(model.layout.pseudo_inputs);
    const auto& values = std::get<FloatValues>(model.splits.train.values);
    std::set<std::size_t> found;
    for (std::size_t k = 0; k < 12; ++k) {
        for (std::size_t row = 0; row < 20; ++row) {
            double furthest = 0;
            for (std::size_t c = 0; c < kPixels; ++c) {
                furthest = std::max<double>(
                    furthest, std::abs(inputs[k * kPixels + c] - values[row * kPixels + c]));
            }
            if (furthest > 0.06) continue;  // six standard deviations of the noise
            EXPECT_GT(furthest, 0);
            found.insert(row);
        }
    }
    EXPECT_EQ(found.size(), 12U);
}

// More of them than examples: those come again, with other noise.
TEST(PseudoInputs, MoreThanExamplesAreAllDifferent) {
    Config config = small_config(Prior::vamp);
    config.model.prior_components = 50;
    Model model(config);
    model.splits.train = test::random_bytes(20, kPixels);
    set_pseudo_inputs(model.layout, model.splits.train, 3, model.state.parameters);
    const auto inputs = model.values_of(model.layout.pseudo_inputs);
    std::set<std::vector<float>> all;
    for (std::size_t k = 0; k < 50; ++k) {
        all.emplace(inputs.begin() + static_cast<std::ptrdiff_t>(k * kPixels),
                    inputs.begin() + static_cast<std::ptrdiff_t>((k + 1) * kPixels));
    }
    EXPECT_EQ(all.size(), 50U);
    EXPECT_LT(*std::ranges::max_element(inputs), 1.1F) << "a byte stands for its 255th part";
}

// Far components, so that each draw tells its own: how often each, and its mean and width.
void expect_draws_of_components(const PriorSampler& sampler, std::span<const float> mean,
                                std::span<const float> logvar, std::span<const double> weights) {
    constexpr std::size_t kDraws = 20000;
    constexpr std::size_t kLatent = 3;
    const std::vector<float> z = sampler.draw(11, kDraws);
    std::vector<std::vector<double>> offsets(weights.size());
    for (std::size_t r = 0; r < kDraws; ++r) {
        std::size_t nearest = 0;
        double least = 1e9;
        for (std::size_t k = 0; k < weights.size(); ++k) {
            const double d = std::abs(z[r * kLatent] - mean[k * kLatent]);
            if (d < least) nearest = k;
            least = std::min(least, d);
        }
        offsets[nearest].push_back(z[r * kLatent] - mean[nearest * kLatent]);
    }
    for (std::size_t k = 0; k < weights.size(); ++k) {
        const auto count = static_cast<double>(offsets[k].size());
        const double spread = std::sqrt(kDraws * weights[k] * (1 - weights[k]));
        EXPECT_NEAR(count, kDraws * weights[k], 4 * spread) << k;
        double mean_offset = 0;
        double square = 0;
        for (const double offset : offsets[k]) {
            mean_offset += offset / count;
            square += offset * offset / count;
        }
        const double variance = std::exp(static_cast<double>(logvar[k * kLatent]));
        EXPECT_NEAR(mean_offset, 0, 4 * std::sqrt(variance / count)) << k;
        EXPECT_NEAR(square / variance, 1, 4 * std::sqrt(2 / count)) << k;
    }
}

TEST(PriorSampler, DrawsTheMixture) {
    Model model(small_config(Prior::mixture));
    const auto mean = model.values_of(model.layout.prior_mean);
    const auto logvar = model.values_of(model.layout.prior_logvar);
    const auto logits = model.values_of(model.layout.prior_logits);
    for (std::size_t i = 0; i < mean.size(); ++i) {
        const std::size_t component = i / 3;
        mean[i] = 40.0F * static_cast<float>(component);
        logvar[i] = 0.5F * static_cast<float>(i % 5) - 1;
    }
    logits[0] = 1;
    logits[2] = -2;
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    std::vector<double> weights;
    for (const float logit : logits)
        weights.push_back(std::exp(static_cast<double>(logit)) / total);
    const PriorSampler sampler(model.config.model, model.layout, model.state.parameters,
                               *model.backend);
    expect_draws_of_components(sampler, mean, logvar, weights);
}

TEST(PriorSampler, DrawsThePosteriorsOfPseudoInputs) {
    Model model(small_config(Prior::vamp));
    // Pseudo-inputs and heads so large that the components lie far apart.
    for (float& value : model.values_of(model.layout.pseudo_inputs)) value = 8 * value - 4;
    for (float& value : model.values_of(model.layout.heads.mu_weight)) value *= 60;
    model.backend->set_state(model.state);
    const Posterior components = model.backend->encode(model.values_of(model.layout.pseudo_inputs));
    const PriorSampler sampler(model.config.model, model.layout, model.state.parameters,
                               *model.backend);
    const std::vector<double> weights(4, 0.25);
    expect_draws_of_components(sampler, components.mu, components.logvar, weights);
}

TEST(PriorSampler, FirstDrawsDoNotDependOnTheirNumber) {
    for (const Prior prior : {Prior::normal, Prior::mixture, Prior::vamp}) {
        Model model(small_config(prior));
        const PriorSampler sampler(model.config.model, model.layout, model.state.parameters,
                                   *model.backend);
        const std::vector<float> few = sampler.draw(2, 3);
        const std::vector<float> many = sampler.draw(2, 8);
        EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
        EXPECT_NE(few, sampler.draw(3, 3));
    }
}

}  // namespace
}  // namespace vae
