// Estimators of one gradient against each other: their means agree, and their variances are as
// theory says. On the double reference; each step of a trace draws noise of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/sample_statistics.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 6;
constexpr std::uint32_t kBatch = 2;

Config small_config(const ObjectiveConfig& objective, Prior prior = Prior::normal,
                    PosteriorCovariance posterior = {}) {
    Config config;
    config.model.encoder_hidden = {4};
    config.model.decoder_hidden = {5};
    config.model.activation = Activation::tanh;
    config.model.latent = 2;
    config.model.initialization = Initialization::glorot;
    config.objective = objective;
    config.model.prior = prior;
    config.model.prior_components = 3;
    config.model.posterior = posterior;
    return config;
}

struct Moments {
    double mean = 0;
    double variance = 0;  // of one draw
    double standard_error = 0;
};

Moments moments_of(const std::vector<double>& values) {
    return {mean_of(values), variance_of(values), error_of_mean(values)};
}

// A direction of its own for each tensor, in which its gradient is looked at.
double projected(const TracedTensor& gradient) {
    std::vector<double> direction(gradient.values.size());
    fill_normal({9, Purpose::synthetic_data, 0, static_cast<std::uint32_t>(direction.size()), 0},
                direction);
    double sum = 0;
    for (std::size_t i = 0; i < direction.size(); ++i) sum += direction[i] * gradient.values[i];
    return sum;
}

// Of the gradient of each tensor whose name starts so, and of the loss (named "loss").
std::vector<std::pair<std::string, Moments>> gradient_moments(
    const ObjectiveConfig& objective, const std::string& prefix, std::size_t steps,
    std::uint64_t first_step = 0, Prior prior = Prior::normal, double beta = 1,
    PosteriorCovariance posterior = {}) {
    const Config config = small_config(objective, prior, posterior);
    const ParameterLayout layout(config.model, kPixels);
    const auto backend = make_cpu_double_backend(config, layout);
    Splits splits;
    splits.train = test::random_floats(kBatch, kPixels);
    backend->set_data(splits);
    TrainingState state = test::initial_state(layout, config);
    state.running_mean = 6;  // of the order of the signal; read by the baseline of that name alone
    backend->set_state(state);
    const auto rows = test::first_rows(kBatch);
    std::vector<std::pair<std::string, std::vector<double>>> drawn = {{"loss", {}}};
    for (const Tensor& tensor : layout.tensors()) {
        if (tensor.name.starts_with(prefix)) drawn.push_back({"grad." + tensor.name, {}});
    }
    for (std::size_t i = 0; i < steps; ++i) {
        const Trace trace = backend->trace({first_step + i, rows, kBatch, {{0, beta}}});
        for (auto& [name, values] : drawn) {
            values.push_back(name == "loss" ? test::find(trace, name).values.at(0)
                                            : projected(test::find(trace, name)));
        }
    }
    std::vector<std::pair<std::string, Moments>> all;
    all.reserve(drawn.size());
    for (const auto& [name, values] : drawn) all.emplace_back(name, moments_of(values));
    return all;
}

// Means of independent draws, within three standard errors.
void expect_same_means(const ObjectiveConfig& a, const ObjectiveConfig& b,
                       const std::string& prefix, std::size_t steps, Prior prior = Prior::normal,
                       double beta = 1, PosteriorCovariance posterior = {}) {
    const auto of_a = gradient_moments(a, prefix, steps, 0, prior, beta, posterior);
    const auto of_b = gradient_moments(b, prefix, steps, steps, prior, beta, posterior);
    ASSERT_EQ(of_a.size(), of_b.size());
    ASSERT_GT(of_a.size(), 2U);
    for (std::size_t i = 0; i < of_a.size(); ++i) {
        const double error =
            std::hypot(of_a[i].second.standard_error, of_b[i].second.standard_error);
        EXPECT_GT(error, 0) << of_a[i].first;
        EXPECT_NEAR(of_a[i].second.mean, of_b[i].second.mean, 3 * error) << of_a[i].first;
    }
}

constexpr std::size_t kSteps = 20000;

TEST(Estimators, SampledAndAnalyticKlAgreeInExpectation) {
    expect_same_means({.kl = KlTerm::analytic}, {.kl = KlTerm::sampled}, "", kSteps);
}

TEST(Estimators, ScoreFunctionAndPathwiseAgreeInExpectation) {
    const auto score = EncoderGradient::score;
    expect_same_means({}, {.gradient = score}, "encoder", kSteps);
    expect_same_means({}, {.kl = KlTerm::sampled, .gradient = score}, "encoder", kSteps);
    expect_same_means({}, {.samples = 3, .gradient = score, .baseline = Baseline::leave_one_out},
                      "encoder", kSteps);
}

TEST(Estimators, DregAndImportanceWeightedAgreeInExpectation) {
    for (const double beta : {1., .4, 0., 2.}) {
        SCOPED_TRACE(beta);
        expect_same_means({.bound = Bound::iwae, .samples = 4},
                          {.bound = Bound::iwae, .samples = 4, .gradient = EncoderGradient::dreg},
                          "encoder", kSteps, Prior::normal, beta);
    }
}

// A learned prior's too: what it adds to the encoder's gradient, and its own parameters' gradients.
TEST(Estimators, AgreeInExpectationWithALearnedPrior) {
    for (const Prior prior : {Prior::mixture, Prior::vamp}) {
        expect_same_means({.bound = Bound::iwae, .samples = 4},
                          {.bound = Bound::iwae, .samples = 4, .gradient = EncoderGradient::dreg},
                          "", kSteps, prior, .6);
        expect_same_means(
            {.samples = 3},
            {.samples = 3, .gradient = EncoderGradient::score, .baseline = Baseline::leave_one_out},
            "", kSteps, prior);
    }
}

// Of a full covariance too, and with a running mean that is far from zero.
TEST(Estimators, AgreeInExpectationWithAFullCovariance) {
    const auto full = PosteriorCovariance::full;
    expect_same_means({.bound = Bound::iwae, .samples = 3},
                      {.bound = Bound::iwae, .samples = 3, .gradient = EncoderGradient::dreg},
                      "encoder", kSteps, Prior::normal, .7, full);
    expect_same_means(
        {.samples = 3},
        {.samples = 3, .gradient = EncoderGradient::score, .baseline = Baseline::leave_one_out},
        "encoder", kSteps, Prior::normal, 1, full);
    expect_same_means({}, {.gradient = EncoderGradient::score, .baseline = Baseline::running_mean},
                      "encoder", kSteps, Prior::normal, 1, full);
}

TEST(Estimators, ARunningMeanChangesNoExpectation) {
    expect_same_means({}, {.gradient = EncoderGradient::score, .baseline = Baseline::running_mean},
                      "encoder", kSteps);
}

// With one draw the importance-weighted bound is the sampled ELBO, to rounding.
TEST(Estimators, OneImportanceSampleIsTheElbo) {
    const auto iwae = gradient_moments({.bound = Bound::iwae}, "", 5);
    const auto elbo = gradient_moments({.kl = KlTerm::sampled}, "", 5);
    ASSERT_EQ(iwae.size(), elbo.size());
    for (std::size_t i = 0; i < iwae.size(); ++i) {
        EXPECT_NEAR(iwae[i].second.mean, elbo[i].second.mean, 1e-13) << iwae[i].first;
    }
}

TEST(Estimators, VarianceFallsAsOneOverTheNumberOfDraws) {
    constexpr std::size_t kFewer = 4000;
    for (const KlTerm kl : {KlTerm::analytic, KlTerm::sampled}) {
        const auto one = gradient_moments({.kl = kl}, "encoder", kFewer);
        for (const std::uint32_t draws : {4U, 16U}) {
            const auto many = gradient_moments({.kl = kl, .samples = draws}, "encoder", kFewer);
            for (std::size_t i = 0; i < one.size(); ++i) {
                // An estimated variance is off by sqrt(2/4000) of itself for a normal, 2.2 %, and
                // these have heavier tails: kurtosis 15 would give 6 %; three of both.
                EXPECT_NEAR(draws * many[i].second.variance / one[i].second.variance, 1, .25)
                    << one[i].first << ", " << draws << " draws";
            }
        }
    }
}

// What the baselines and the doubly reparameterised gradient are for.
TEST(Estimators, BaselinesAndDregReduceTheVariance) {
    constexpr std::size_t kFewer = 2000;
    const auto of = [](const ObjectiveConfig& objective) {
        double sum = 0;
        for (const auto& [name, moments] : gradient_moments(objective, "encoder", kFewer)) {
            if (name != "loss") sum += moments.variance;
        }
        return sum;
    };
    const double plain = of({.samples = 4, .gradient = EncoderGradient::score});
    const double leave_one_out =
        of({.samples = 4, .gradient = EncoderGradient::score, .baseline = Baseline::leave_one_out});
    EXPECT_LT(10 * leave_one_out, plain);
    EXPECT_LT(10 * of({.samples = 4}), plain);
    const double iwae = of({.bound = Bound::iwae, .samples = 16});
    EXPECT_LT(of({.bound = Bound::iwae, .samples = 16, .gradient = EncoderGradient::dreg}), iwae);
}

// The running mean is made of the steps before, and becomes the first step's signal at once.
TEST(Estimators, RunningMeanFollowsTheSignal) {
    const Config config =
        small_config({.gradient = EncoderGradient::score, .baseline = Baseline::running_mean});
    const ParameterLayout layout(config.model, kPixels);
    const auto backend = make_cpu_double_backend(config, layout);
    Splits splits;
    splits.train = test::random_floats(kBatch, kPixels);
    backend->set_data(splits);
    TrainingState state = test::initial_state(layout, config);
    backend->set_state(state);
    const auto rows = test::first_rows(kBatch);
    double mean = 0;
    for (std::uint64_t step = 0; step < 5; ++step) {
        backend->train({step, rows, kBatch, {{0, 1}}});  // parameters stay
        const double signal = backend->take_totals().losses.recon / kBatch;
        mean = step == 0 ? signal : mean + kRunningMeanRate * (signal - mean);
        EXPECT_NEAR(backend->state().running_mean, mean, 1e-13);
    }
}

}  // namespace
}  // namespace vae
