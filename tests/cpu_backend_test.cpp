// Both CPU backends through the seam: what a step computes, formula by formula, and what train,
// evaluate, encode, decode and the state functions promise.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/noise.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 33;
constexpr std::size_t kTrain = 70;
constexpr std::size_t kTest = 1031;  // more than two batches of evaluation

// Parameterized by whether the backend is the double one.
class CpuBackendTest : public testing::TestWithParam<bool> {
  protected:
    CpuBackendTest() : splits_(test::random_splits(kTrain, kTest, kPixels)) {
        config_.train.seed = 11;
        config_.train.batch = 16;
        config_.model.encoder_hidden = {31, 9};
        config_.model.latent = 5;
        config_.model.decoder_hidden = {17};
        config_.model.activation = Activation::gelu;
    }

    std::unique_ptr<Backend> make() const {
        const ParameterLayout layout(config_.model, kPixels);
        auto backend = GetParam() ? make_cpu_double_backend(config_, layout)
                                  : make_cpu_backend(config_, layout);
        backend->set_data(splits_);
        backend->set_state(test::initial_state(layout, config_));
        return backend;
    }

    // Rounding of the backend's precision in a sum of a few hundred terms of order one.
    double rounding() const { return GetParam() ? 1e-12 : 1e-4; }

    TrainRequest request(std::span<const std::uint32_t> rows, std::uint64_t step = 0) const {
        return {step, rows, config_.train.batch, {{1e-3, 1.5}}};
    }

    Config config_;
    Splits splits_;
};

INSTANTIATE_TEST_SUITE_P(Precision, CpuBackendTest, testing::Bool(), [](const auto& precision) {
    return precision.param ? std::string("double") : std::string("float");
});

TEST_P(CpuBackendTest, SaysWhatItIs) {
    const auto backend = make();
    EXPECT_EQ(backend->name(), GetParam() ? "cpu-double" : "cpu");
    EXPECT_EQ(backend->is_double(), GetParam());
    EXPECT_NE(backend->device().find("thread"), std::string::npos);
}

TEST_P(CpuBackendTest, TraceHasTheDocumentedNamesAndShapes) {
    const auto rows = test::first_rows(3);
    const Trace trace = make()->trace(request(rows));
    using Shape = std::vector<std::size_t>;
    std::vector<std::pair<std::string, Shape>> expected = {{"x", {3, 33}},
                                                           {"epsilon", {3, 5}},
                                                           {"encoder.0.h", {3, 31}},
                                                           {"encoder.1.h", {3, 9}},
                                                           {"mu", {3, 5}},
                                                           {"logvar", {3, 5}},
                                                           {"z", {3, 5}},
                                                           {"decoder.0.h", {3, 17}},
                                                           {"logits", {3, 33}},
                                                           {"recon", {3}},
                                                           {"kl", {3}},
                                                           {"loss", {1}}};
    for (const Tensor& tensor : ParameterLayout(config_.model, kPixels).tensors()) {
        expected.emplace_back("grad." + tensor.name, tensor.shape);
    }
    ASSERT_EQ(trace.size(), expected.size());
    for (std::size_t i = 0; i < trace.size(); ++i) {
        EXPECT_EQ(trace[i].name, expected[i].first);
        EXPECT_EQ(trace[i].shape, expected[i].second) << trace[i].name;
        std::size_t size = 1;
        for (const std::size_t extent : trace[i].shape) size *= extent;
        EXPECT_EQ(trace[i].values.size(), size) << trace[i].name;
    }
    config_.model.likelihood = Likelihood::gaussian;
    EXPECT_NO_THROW(test::find(make()->trace(request(rows)), "mean"));
}

TEST_P(CpuBackendTest, EpsilonIsTheNoiseAtItsAddress) {
    const std::vector<std::uint32_t> rows = {40, 3, 69};
    const Trace trace = make()->trace(request(rows, 123));
    const auto& epsilon = test::find(trace, "epsilon").values;
    for (std::size_t r = 0; r < rows.size(); ++r) {
        std::vector<double> expected(5);
        fill_normal({11, Purpose::epsilon, 123, rows[r], 0}, expected);
        for (std::size_t j = 0; j < 5; ++j) {
            EXPECT_NEAR(epsilon[r * 5 + j], expected[j], GetParam() ? 0 : 3e-6);  // see noise_test
        }
    }
}

TEST_P(CpuBackendTest, LossesAreTheFormulas) {
    const auto rows = test::first_rows(7);
    for (const auto likelihood : {Likelihood::bernoulli, Likelihood::gaussian}) {
        config_.model.likelihood = likelihood;
        const bool bernoulli = likelihood == Likelihood::bernoulli;
        const Trace trace = make()->trace(request(rows));
        const auto& x = test::find(trace, "x").values;
        const auto& output = test::find(trace, bernoulli ? "logits" : "mean").values;
        const auto& mu = test::find(trace, "mu").values;
        const auto& logvar = test::find(trace, "logvar").values;
        const auto& epsilon = test::find(trace, "epsilon").values;
        double loss = 0;
        for (std::size_t r = 0; r < rows.size(); ++r) {
            double recon = 0;
            for (std::size_t c = r * kPixels; c < (r + 1) * kPixels; ++c) {
                const double p = 1 / (1 + std::exp(-output[c]));
                const double sigma = config_.model.sigma;
                const double error = (x[c] - output[c]) / sigma;
                recon -= bernoulli ? x[c] * std::log(p) + (1 - x[c]) * std::log(1 - p)
                                   : -error * error / 2 -
                                         std::log(sigma * std::sqrt(2 * std::numbers::pi));
            }
            double kl = 0;
            for (std::size_t j = r * 5; j < (r + 1) * 5; ++j) {
                kl += (mu[j] * mu[j] + std::exp(logvar[j]) - 1 - logvar[j]) / 2;
                EXPECT_NEAR(test::find(trace, "z").values[j],
                            mu[j] + std::exp(logvar[j] / 2) * epsilon[j], rounding());
            }
            EXPECT_NEAR(test::find(trace, "recon").values[r], recon, rounding());
            EXPECT_NEAR(test::find(trace, "kl").values[r], kl, rounding());
            loss += (recon + 1.5 * kl) / 7;
        }
        EXPECT_NEAR(test::find(trace, "loss").values[0], loss, rounding());
    }
}

TEST_P(CpuBackendTest, DataAreNormalizedOrBinarizedByTheRule) {
    const std::vector<std::uint32_t> rows = {5, 60};
    const auto& bytes = std::get<ByteValues>(splits_.train.values);
    for (const auto binarize : {Binarize::none, Binarize::dynamic, Binarize::fixed}) {
        config_.data.binarize = binarize;
        const auto backend = make();
        const Trace trace = backend->trace(request(rows, 9));
        const auto& x = test::find(trace, "x").values;
        for (std::size_t r = 0; r < rows.size(); ++r) {
            std::vector<float> u(kPixels);
            const bool dynamic = binarize == Binarize::dynamic;
            fill_uniform({11, dynamic ? Purpose::dynamic_binarization : Purpose::fixed_binarization,
                          dynamic ? 9U : 0U, rows[r], 0},
                         u);
            for (std::size_t c = 0; c < kPixels; ++c) {
                const std::uint8_t byte = bytes[rows[r] * kPixels + c];
                const float p = static_cast<float>(byte) / 255.0F;
                const double grey = GetParam() ? byte / 255.0 : static_cast<double>(p);
                const double binary = u[c] <= p ? 1 : 0;
                EXPECT_EQ(x[r * kPixels + c], binarize == Binarize::none ? grey : binary);
            }
        }
    }
}

TEST_P(CpuBackendTest, EvaluationBinarizesOnceAndForAll) {
    const std::vector<std::uint32_t> rows = {2, 1030};
    const auto& bytes = std::get<ByteValues>(splits_.test.values);
    for (const auto binarize : {Binarize::dynamic, Binarize::fixed}) {
        config_.data.binarize = binarize;
        const auto values = make()->examples(Split::test, rows);
        ASSERT_EQ(values.size(), rows.size() * kPixels);
        for (std::size_t r = 0; r < rows.size(); ++r) {
            std::vector<float> u(kPixels);
            // Test examples are counted on from the training examples.
            const auto example = static_cast<std::uint32_t>(kTrain) + rows[r];
            fill_uniform({11, Purpose::fixed_binarization, 0, example, 0}, u);
            for (std::size_t c = 0; c < kPixels; ++c) {
                const float p = static_cast<float>(bytes[rows[r] * kPixels + c]) / 255.0F;
                EXPECT_EQ(values[r * kPixels + c], u[c] <= p ? 1.0F : 0.0F);
            }
        }
    }
}

TEST_P(CpuBackendTest, AStepIsTheGradientThroughAdam) {
    const auto rows = test::first_rows(16);
    const auto backend = make();
    const auto before = backend->exact_parameters();
    const Trace first = backend->trace(request(rows, 0));
    backend->train(request(rows, 0));
    const auto between = backend->exact_parameters();
    const Trace second = backend->trace(request(rows, 1));
    backend->train(request(rows, 1));
    const auto after = backend->exact_parameters();
    EXPECT_EQ(backend->state().step, 2U);
    // Of an update of at most the learning rate, and the parameter's own rounding.
    const double bound = GetParam() ? 1e-15 : 1e-3 * 1e-5 + 1e-7;
    for (const Tensor& tensor : ParameterLayout(config_.model, kPixels).tensors()) {
        const auto& g1 = test::find(first, "grad." + tensor.name).values;
        const auto& g2 = test::find(second, "grad." + tensor.name).values;
        for (std::size_t i = 0; i < tensor.size; ++i) {
            const std::size_t at = tensor.offset + i;
            const double m1 = .1 * g1[i];
            const double v1 = .001 * g1[i] * g1[i];
            const double step1 = 1e-3 * (m1 / .1) / (std::sqrt(v1 / .001) + 1e-8);
            ASSERT_NEAR(between[at], before[at] - step1, bound) << tensor.name << "[" << i << "]";
            const double m2 = .9 * m1 + .1 * g2[i];
            const double v2 = .999 * v1 + .001 * g2[i] * g2[i];
            const double step2 =
                1e-3 * (m2 / (1 - .81)) / (std::sqrt(v2 / (1 - .999 * .999)) + 1e-8);
            ASSERT_NEAR(after[at], between[at] - step2, bound) << tensor.name << "[" << i << "]";
        }
    }
}

TEST_P(CpuBackendTest, PaddingStaysZero) {
    const auto backend = make();
    const auto rows = test::first_rows(kTrain);
    backend->train(request(rows));
    const TrainingState state = backend->state();
    const ParameterLayout layout(config_.model, kPixels);
    for (const auto& arena : {state.parameters, state.moments.at(0), state.moments.at(1)}) {
        const auto padding = test::padding_of(layout, arena);
        EXPECT_FALSE(padding.empty());
        EXPECT_EQ(padding, std::vector<float>(padding.size(), 0.0F));
    }
}

TEST_P(CpuBackendTest, HowStepsAreCutIntoCallsDoesNotMatter) {
    config_.data.binarize = Binarize::dynamic;
    const auto rows = test::first_rows(kTrain);  // four batches of 16 and one of 6
    const auto once = make();
    once->train(request(rows));
    const auto often = make();
    LossTotals sum;
    for (std::size_t step = 0; step < 5; ++step) {
        const std::size_t begin = step * 16;
        often->train(request(
            std::span(rows).subspan(begin, std::min<std::size_t>(16, kTrain - begin)), step));
        sum += often->take_totals().losses;
    }
    EXPECT_EQ(once->exact_parameters(), often->exact_parameters());
    const LossTotals totals = once->take_totals().losses;
    EXPECT_EQ(totals.examples, kTrain);
    EXPECT_EQ(sum.examples, kTrain);
    EXPECT_NEAR(totals.loss, sum.loss, 1e-9);
    EXPECT_NEAR(totals.loss, totals.recon + 1.5 * totals.kl, 1e-9);
    EXPECT_EQ(once->take_totals().losses.examples, 0U);
    EXPECT_EQ(once->take_totals().losses.loss, 0);
}

TEST_P(CpuBackendTest, EachStepHasItsLearningRateAndBeta) {
    const auto rows = test::first_rows(60);  // three batches of 16 and one of 12
    const std::vector<StepSchedule> schedule = {{1e-3, 0}, {1e-2, 2}, {0, 1}, {1e-4, .5}};
    const auto once = make();
    TrainRequest all = request(rows);
    all.schedule = schedule;
    once->train(all);
    const auto often = make();
    LossTotals sum;
    for (std::size_t step = 0; step < schedule.size(); ++step) {
        const std::size_t begin = step * 16;
        TrainRequest one = request(
            std::span(rows).subspan(begin, std::min<std::size_t>(16, rows.size() - begin)), step);
        one.schedule = {schedule[step]};
        const auto before = often->exact_parameters();
        often->train(one);
        EXPECT_EQ(often->exact_parameters() == before, schedule[step].learning_rate == 0);
        const LossTotals totals = often->take_totals().losses;
        EXPECT_NEAR(totals.loss, totals.recon + schedule[step].beta * totals.kl, 1e-9);
        sum += totals;
    }
    EXPECT_EQ(once->exact_parameters(), often->exact_parameters());
    EXPECT_NEAR(once->take_totals().losses.loss, sum.loss, 1e-9);
    all.first_step = 4;
    all.schedule.pop_back();
    EXPECT_THROW(once->train(all), std::invalid_argument);
    all.schedule.clear();
    EXPECT_THROW(once->train(all), std::invalid_argument);
}

TEST_P(CpuBackendTest, TheStateIsAllThatAResumeNeeds) {
    if (GetParam()) GTEST_SKIP() << "a state holds floats";
    const auto rows = test::first_rows(64);
    const auto whole = make();
    whole->train(request(rows));
    const auto first = make();
    first->train(request(std::span(rows).first(32)));
    const auto second = make();
    second->set_state(first->state());
    second->train(request(std::span(rows).last(32), 2));
    EXPECT_EQ(whole->exact_parameters(), second->exact_parameters());
    EXPECT_EQ(whole->state().moments, second->state().moments);
    EXPECT_EQ(second->state().step, 4U);
}

TEST_P(CpuBackendTest, ATraceChangesNothing) {
    const auto rows = test::first_rows(16);
    const auto backend = make();
    const auto before = backend->exact_parameters();
    backend->trace(request(rows));
    EXPECT_EQ(backend->exact_parameters(), before);
    EXPECT_EQ(backend->state().step, 0U);
    EXPECT_EQ(backend->take_totals().losses.examples, 0U);
}

TEST_P(CpuBackendTest, TrainingLowersTheLoss) {
    const auto backend = make();
    const double before = backend->evaluate(Split::train, 1).loss;
    const auto rows = test::first_rows(kTrain);
    for (std::uint64_t epoch = 0; epoch < 40; ++epoch) backend->train(request(rows, epoch * 5));
    EXPECT_LT(backend->evaluate(Split::train, 1).loss, .99 * before);  // noise: its entropy is most
}

TEST_P(CpuBackendTest, EvaluationIsTheSumOverExamples) {
    const auto backend = make();
    const LossTotals totals = backend->evaluate(Split::test, 2);
    EXPECT_EQ(totals.examples, kTest);
    EXPECT_NEAR(totals.loss, totals.recon + 2 * totals.kl, 1e-9 * totals.loss);
    // From encode and decode, with epsilon at its documented address.
    double recon = 0;
    double kl = 0;
    const auto rows = test::first_rows(kTest);
    const auto x = backend->examples(Split::test, rows);
    const Posterior posterior = backend->encode(x);
    ASSERT_EQ(posterior.mu.size(), kTest * 5);
    std::vector<float> z(kTest * 5);
    for (std::uint32_t r = 0; r < kTest; ++r) {
        std::vector<float> epsilon(5);
        fill_normal({11, Purpose::evaluation_epsilon, 0, static_cast<std::uint32_t>(kTrain) + r, 0},
                    std::span(epsilon));
        for (std::size_t j = 0; j < 5; ++j) {
            const std::size_t at = r * 5 + j;
            const auto mu = static_cast<double>(posterior.mu[at]);
            const auto logvar = static_cast<double>(posterior.logvar[at]);
            z[at] = static_cast<float>(mu + std::exp(logvar / 2) * static_cast<double>(epsilon[j]));
            kl += (mu * mu + std::expm1(logvar) - logvar) / 2;
        }
    }
    const auto mean = backend->decode(z);
    ASSERT_EQ(mean.size(), x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const auto p = static_cast<double>(mean[i]);
        const auto pixel = static_cast<double>(x[i]);
        recon -= pixel * std::log(p) + (1 - pixel) * std::log(1 - p);
    }
    EXPECT_NEAR(totals.recon, recon, 1e-6 * recon);  // the seam's floats
    EXPECT_NEAR(totals.kl, kl, 1e-5 * kl);
}

TEST_P(CpuBackendTest, NothingGivesNothing) {
    const auto backend = make();
    EXPECT_EQ(backend->evaluate(Split::validation, 1).examples, 0U);
    EXPECT_TRUE(backend->encode({}).mu.empty());
    EXPECT_TRUE(backend->decode({}).empty());
    EXPECT_TRUE(backend->examples(Split::train, {}).empty());
    const auto before = backend->exact_parameters();
    backend->train(request({}));
    EXPECT_EQ(backend->exact_parameters(), before);
}

TEST_P(CpuBackendTest, WrongRequestsThrow) {
    const auto backend = make();
    const std::vector<std::uint32_t> outside = {0, kTrain};
    const auto rows = test::first_rows(17);
    EXPECT_THROW(backend->train(request(outside)), std::invalid_argument);
    EXPECT_THROW(backend->trace(request(outside)), std::invalid_argument);
    EXPECT_THROW(backend->trace(request(rows)), std::invalid_argument);  // more than a batch
    EXPECT_THROW(backend->trace(request({})), std::invalid_argument);
    EXPECT_THROW(backend->train({0, rows, 0, {{1e-3, 1}}}), std::invalid_argument);
    EXPECT_THROW(backend->examples(Split::validation, outside), std::invalid_argument);
    const std::vector<float> odd(kPixels + 1);
    EXPECT_THROW(backend->encode(odd), std::invalid_argument);
    EXPECT_THROW(backend->decode(odd), std::invalid_argument);
    TrainingState state = backend->state();
    state.moments[1].pop_back();
    EXPECT_THROW(backend->set_state(state), std::invalid_argument);
    state = backend->state();
    state.moments.pop_back();
    EXPECT_THROW(backend->set_state(state), std::invalid_argument);
    state = backend->state();
    state.ema = state.parameters;  // which this configuration does not have
    EXPECT_THROW(backend->set_state(state), std::invalid_argument);
}

TEST_P(CpuBackendTest, NotANumberShows) {
    Dataset bad = test::random_floats(4, kPixels);
    test::change_values<float>(bad, [](std::vector<float>& values) {
        values[2 * kPixels + 7] = std::numeric_limits<float>::quiet_NaN();
    });
    splits_.train = bad;
    const auto rows = test::first_rows(4);
    for (const auto activation : {Activation::relu, Activation::tanh, Activation::softplus,
                                  Activation::gelu, Activation::silu, Activation::gated}) {
        config_.model.activation = activation;
        const Trace trace = make()->trace(request(rows));
        for (const char* name : {"recon", "kl"}) {
            const auto& values = test::find(trace, name).values;
            EXPECT_TRUE(std::isnan(values[2])) << name;
            EXPECT_FALSE(std::isnan(values[1])) << name;  // rows do not mix
        }
        EXPECT_TRUE(std::isnan(test::find(trace, "grad.encoder.0.weight").values[0]));
    }
}

}  // namespace
}  // namespace vae
