// The gradients of the double reference against central differences of its own loss, for every
// parameter of a small ragged network. The loss itself is checked elsewhere (linear_gaussian_test
// and the formulas of cpu_backend_test).
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "host/backend.h"
#include "host/error.h"
#include "host/output_layer.h"
#include "host/settings.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 6;
constexpr std::uint32_t kBatch = 3;
constexpr std::uint32_t kComponents = 4;

// Parameters are rounded to multiples of 2^-10, so that adding the step is exact in the float in
// which the backend takes them. Half the width of a central difference: its error is h²/6·f''' +
// 1e-16·|f|/h, here about 1e-11·f''' + 1e-10 with |f| about 10.
constexpr float kStep = 0x1p-17F;
// So a gradient element must agree to this much of itself plus this much absolutely.
constexpr double kRelative = 1e-7;
constexpr double kAbsolute = 1e-8;

// The range of log-variances. Without help they stay inside: |W h| < 1 here.
constexpr double kBound = 1.5;

struct Case {
    Activation activation;
    Likelihood likelihood;
    double beta;
    bool clamped;  // some log-variances beyond each end of the range
    std::vector<std::uint32_t> hidden;
    std::string name;
    ObjectiveConfig objective = {};
    Variance variance = Variance::fixed;
    std::uint32_t levels = 3;
    Prior prior = Prior::normal;
    PosteriorCovariance posterior = PosteriorCovariance::diagonal;

    // DReG and the score function estimate the gradient of the expected loss by another one than
    // that of the loss of these draws: in the encoder they differ from it (estimators_test has
    // them), in the decoder and the prior they may not.
    bool is_exact(const std::string& tensor) const {
        return objective.gradient == EncoderGradient::pathwise || tensor.starts_with("decoder") ||
               tensor.starts_with("prior");
    }
};

void PrintTo(const Case& shown, std::ostream* out) {
    *out << shown.name;
}

Config config_of(const Case& c) {
    Config config;
    config.model.encoder_hidden = c.hidden;
    config.model.decoder_hidden.assign(c.hidden.rbegin(), c.hidden.rend());
    config.model.latent = 3;
    config.model.activation = c.activation;
    config.model.likelihood = c.likelihood;
    config.model.logvar_min = -kBound;
    config.model.logvar_max = kBound;
    config.model.variance = c.variance;
    config.model.levels = c.levels;
    config.model.prior = c.prior;
    config.model.prior_components = kComponents;
    config.model.posterior = c.posterior;
    config.model.sigma_min = 0.05;
    config.objective = c.objective;
    return config;
}

bool is_allowed(const Case& c) {
    try {
        check_config(config_of(c));
    } catch (const InputError&) {
        return false;
    }
    return true;
}

class FiniteDifference : public testing::TestWithParam<Case> {
  protected:
    FiniteDifference() : config_(config_of(GetParam())) {
        splits_.train = test::in_support(test::random_floats(kBatch, kPixels), config_.model);
    }

    // Biases of the log-variances in a clamped case are above, inside and below the range.
    TrainingState state_for(const ParameterLayout& layout) const {
        TrainingState state = test::initial_state(layout, config_);
        if (GetParam().clamped) {
            float* bias = state.parameters.data() + layout.heads.logvar_bias.offset;
            bias[0] = 3;
            bias[1] = 0;
            bias[2] = -3;
        }
        // Learned variances and scales at both ends of their range, and between.
        const Tensor& bias = layout.output.bias;
        if (has_scale_outputs(config_.model)) {
            float* scales = state.parameters.data() + bias.offset + kPixels;
            scales[0] += 4;
            scales[1] -= 5;
        }
        if (config_.model.prior == Prior::mixture) set_components(layout, state.parameters);
        if (has_logvar(config_.model)) state.parameters[layout.output_logvar.offset] = -1.25F;
        for (float& value : state.parameters) value = std::round(value * 0x1p10F) * 0x1p-10F;
        return state;
    }

    // Components of different weight and width, one of them beyond each end of the range.
    static void set_components(const ParameterLayout& layout, std::vector<float>& parameters) {
        const auto values_of = [&](const Tensor& tensor) {
            return std::span<float>(parameters).subspan(tensor.offset, tensor.size);
        };
        fill_normal({3, Purpose::synthetic_data, 0, 1}, values_of(layout.prior_logits));
        const auto logvars = values_of(layout.prior_logvar);
        fill_uniform({3, Purpose::synthetic_data, 0, 2}, logvars);
        logvars[1] += static_cast<float>(kBound);
        logvars[5] -= static_cast<float>(kBound) + 1;
    }

    // That a case shows what it is for.
    void check_clamping(const Trace& trace) const {
        const auto& logvar = test::find(trace, "logvar").values;
        ASSERT_EQ(logvar.size(), 3 * kBatch);
        for (std::size_t i = 0; i < logvar.size(); ++i) {
            const double bound = i % 3 == 0 ? kBound : -kBound;
            const bool at_bound = GetParam().clamped && i % 3 != 1;
            if (at_bound) {
                EXPECT_EQ(logvar[i], bound) << i;
            } else {
                EXPECT_LT(std::abs(logvar[i]), kBound) << i;
            }
        }
    }

    Trace trace(Backend& backend) const {
        return backend.trace({4, rows_, kBatch, {{0, GetParam().beta}}});
    }

    Config config_;
    Splits splits_;
    std::vector<std::uint32_t> rows_ = test::first_rows(kBatch);
};

TEST_P(FiniteDifference, AgreesForEveryParameter) {
    const ParameterLayout layout(config_.model, kPixels);
    const auto backend = make_cpu_double_backend(config_, layout);
    backend->set_data(splits_);
    TrainingState state = state_for(layout);
    backend->set_state(state);
    const Trace exact = trace(*backend);
    check_clamping(exact);
    const auto loss_at = [&](float& parameter, float value) {
        const float before = std::exchange(parameter, value);
        backend->set_state(state);
        parameter = before;
        return test::find(trace(*backend), "loss").values.at(0);
    };
    for (const Tensor& tensor : layout.tensors()) {
        if (!GetParam().is_exact(tensor.name)) continue;
        const auto& gradient = test::find(exact, "grad." + tensor.name).values;
        ASSERT_EQ(gradient.size(), tensor.size);
        for (std::size_t i = 0; i < tensor.size; ++i) {
            float& parameter = state.parameters[tensor.offset + i];
            const double above = loss_at(parameter, parameter + kStep);
            const double below = loss_at(parameter, parameter - kStep);
            const double difference = (above - below) / (2 * static_cast<double>(kStep));
            ASSERT_NEAR(gradient[i], difference, kAbsolute + kRelative * std::abs(difference))
                << tensor.name << "[" << i << "]";
        }
    }
}

struct Output {
    Likelihood likelihood;
    std::string name;
    Variance variance = Variance::fixed;
    std::uint32_t levels = 3;
};

std::vector<std::pair<ObjectiveConfig, std::string>> every_objective() {
    using enum KlTerm;
    using enum EncoderGradient;
    return {{{Bound::elbo, analytic, 1}, "elbo_1"},
            {{Bound::elbo, analytic, 4}, "elbo_4"},
            {{Bound::elbo, sampled, 1}, "elbo_sampled_1"},
            {{Bound::elbo, sampled, 3}, "elbo_sampled_3"},
            {{Bound::iwae, analytic, 1}, "iwae_1"},
            {{Bound::iwae, analytic, 5}, "iwae_5"},
            {{Bound::iwae, sampled, 3, dreg}, "dreg_3"},
            {{Bound::elbo, analytic, 1, score}, "score_1"},
            {{Bound::elbo, sampled, 3, score, Baseline::leave_one_out}, "score_3"}};
}

// Every objective with every likelihood, posterior and prior that it goes with.
void add_combinations(std::vector<Case>& all) {
    using enum Likelihood;
    using enum PosteriorCovariance;
    const std::vector<Output> outputs = {{bernoulli, "_bernoulli"},
                                         {gaussian, "_gaussian"},
                                         {gaussian, "_gaussian_shared", Variance::shared},
                                         {gaussian, "_gaussian_pixel", Variance::pixel},
                                         {gaussian, "_gaussian_optimal", Variance::optimal},
                                         {logistic, "_logistic"},
                                         {categorical, "_categorical", {}, 5},
                                         {onehot, "_onehot"},
                                         {poisson, "_poisson"}};
    const std::vector<std::pair<Prior, std::string>> priors = {
        {Prior::normal, ""}, {Prior::mixture, "_mixture"}, {Prior::vamp, "_vamp"}};
    for (const auto& [objective, name] : every_objective()) {
        for (const Output& output : outputs) {
            for (const auto& [prior, of_prior] : priors) {
                for (const auto& [posterior, covariance] :
                     {std::pair(diagonal, ""), std::pair(full, "full_")}) {
                    std::string label = covariance + name;
                    label += output.name;
                    label += of_prior;
                    const Case added = {Activation::tanh,
                                        output.likelihood,
                                        .7,
                                        true,
                                        {5, 3},
                                        label,
                                        objective,
                                        output.variance,
                                        output.levels,
                                        prior,
                                        posterior};
                    if (is_allowed(added)) all.push_back(added);
                }
            }
        }
    }
}

// The three dimensions' KLs are about 1, 0.1 and 0.4 nats in a clamped case: floors that none, some
// and all of them lie under (FreeBits of cpu_free_bits_test counts them).
void add_free_bits(std::vector<Case>& all) {
    using enum EncoderGradient;
    const std::vector<std::pair<ObjectiveConfig, std::string>> objectives = {
        {{.samples = 1}, "elbo"},
        {{.samples = 3}, "elbo_3"},
        {{.samples = 2, .gradient = score, .baseline = Baseline::leave_one_out}, "score"}};
    for (const FreeBitsPer per : {FreeBitsPer::dimension, FreeBitsPer::total}) {
        for (const double nats : {1e-3, .25, .6, 9.}) {
            for (auto [objective, name] : objectives) {
                objective.free_bits = nats;
                objective.free_bits_per = per;
                all.push_back({Activation::tanh,
                               Likelihood::bernoulli,
                               .7,
                               true,
                               {5},
                               name + "_free_bits_" + std::to_string(std::lround(1000 * nats)) +
                                   (per == FreeBitsPer::total ? "_in_total" : "_per_dimension"),
                               objective});
            }
        }
    }
}

// Learned priors with encoders of every kind behind the pseudo-inputs, and where they weigh
// nothing.
void add_priors(std::vector<Case>& all) {
    using enum Likelihood;
    using enum Activation;
    for (const auto& [prior, of] :
         {std::pair(Prior::mixture, "_mixture"), std::pair(Prior::vamp, "_vamp")}) {
        const auto add = [&all, prior = prior, of = std::string(of)](Case added) {
            added.prior = prior;
            added.name += of;
            all.push_back(std::move(added));
        };
        add({gated, bernoulli, 1, false, {5, 4}, "gated_bernoulli"});
        add({gelu, gaussian, 2, true, {5}, "gelu_gaussian_pixel", {}, Variance::pixel});
        add({tanh, bernoulli, 1, false, {}, "linear_bernoulli"});
        add({tanh, bernoulli, 0, false, {4}, "without_kl"});
    }
}

// Free bits of a full covariance, below and above its KL.
void add_full_covariance(std::vector<Case>& all) {
    for (const double nats : {.5, 50.}) {
        ObjectiveConfig floored;
        floored.free_bits = nats;
        floored.free_bits_per = FreeBitsPer::total;
        all.push_back({Activation::tanh,
                       Likelihood::bernoulli,
                       .7,
                       true,
                       {5, 3},
                       nats < 1 ? "full_free_bits_below" : "full_free_bits_above",
                       floored,
                       Variance::fixed,
                       3,
                       Prior::normal,
                       PosteriorCovariance::full});
    }
}

std::vector<Case> cases() {
    using enum Activation;
    using enum Likelihood;
    std::vector<Case> all;
    const std::vector<std::pair<Activation, std::string>> activations = {
        {relu, "relu"}, {tanh, "tanh"}, {softplus, "softplus"},
        {gelu, "gelu"}, {silu, "silu"}, {gated, "gated"}};
    for (const auto& [activation, name] : activations) {
        all.push_back({activation, bernoulli, 1, false, {5, 3}, name + "_bernoulli"});
        all.push_back({activation, gaussian, 1, false, {5, 3}, name + "_gaussian"});
        all.push_back({activation, bernoulli, 2.5, true, {5, 3}, name + "_bernoulli_beta_clamped"});
        all.push_back({activation, gaussian, 0, true, {5, 3}, name + "_gaussian_beta_clamped"});
    }
    for (const auto& [variance, name] :
         {std::pair(Variance::shared, "shared"), std::pair(Variance::pixel, "pixel"),
          std::pair(Variance::optimal, "optimal")}) {
        const std::string of = std::string("_gaussian_") + name;
        all.push_back({silu, gaussian, .5, true, {5}, "silu" + of + "_clamped", {}, variance});
    }
    for (const std::uint32_t levels : {2U, 256U}) {
        const std::string of = "_logistic_" + std::to_string(levels);
        all.push_back({tanh, logistic, 1, false, {5, 3}, "tanh" + of, {}, {}, levels});
    }
    all.push_back({tanh, categorical, 1, false, {5}, "tanh_categorical_2", {}, {}, 2});
    all.push_back({silu, onehot, 2, true, {5}, "silu_onehot_of_one_group", {}, {}, 6});
    all.push_back({relu, bernoulli, 1, false, {}, "linear_bernoulli", {}});
    all.push_back({relu, gaussian, .5, false, {}, "linear_gaussian", {}});
    add_combinations(all);
    add_free_bits(all);
    add_priors(all);
    add_full_covariance(all);
    return all;
}

INSTANTIATE_TEST_SUITE_P(Models, FiniteDifference, testing::ValuesIn(cases()),
                         [](const auto& test_case) { return test_case.param.name; });

}  // namespace
}  // namespace vae
