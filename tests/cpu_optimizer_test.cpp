// The optimisers of both CPU backends: their formulas as PyTorch documents them, what is done to
// gradients before, the average of the parameters after, and steps that are skipped.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/backend.h"
#include "host/cpu/gradient_statistics.h"
#include "host/noise.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 33;
constexpr std::uint32_t kBatch = 16;

struct Way {
    std::string name;
    TrainConfig train;
    bool is_double = false;
};

std::vector<Way> ways() {
    std::vector<Way> all;
    for (const auto& [name, train] : test::ways_to_train()) {
        all.push_back({name + "_float", train, false});
        all.push_back({name + "_double", train, true});
    }
    return all;
}

void PrintTo(const Way& way, std::ostream* out) {
    *out << way.name;
}

// What an optimiser knows of one parameter, in double.
struct Element {
    double p = 0;
    double first = 0;
    double second = 0;
    double ema = 0;
};

// One step as the documentation of torch.optim has it: Adam, AdamW, Adagrad, SGD.
void step_as_documented(const TrainConfig& c, int t, double g, Element& e) {
    if (c.optimizer == Optimizer::adamw) {
        e.p -= c.learning_rate * c.weight_decay * e.p;
    } else {
        g += c.weight_decay * e.p;
    }
    switch (c.optimizer) {
        case Optimizer::adam:
        case Optimizer::adamw: {
            e.first = c.adam_beta1 * e.first + (1 - c.adam_beta1) * g;
            e.second = c.adam_beta2 * e.second + (1 - c.adam_beta2) * g * g;
            const double m = e.first / (1 - std::pow(c.adam_beta1, t));
            const double v = e.second / (1 - std::pow(c.adam_beta2, t));
            e.p -= c.learning_rate * m / (std::sqrt(v) + c.adam_epsilon);
            break;
        }
        case Optimizer::adagrad:
            e.first += g * g;
            e.p -= c.learning_rate * g / (std::sqrt(e.first) + c.adagrad_epsilon);
            break;
        case Optimizer::sgd:
            e.first = t == 1 ? g : c.momentum * e.first + g;
            e.p -= c.learning_rate * e.first;
            break;
    }
    e.ema = c.ema * e.ema + (1 - c.ema) * e.p;
}

class CpuOptimizer : public testing::TestWithParam<Way> {
  protected:
    CpuOptimizer() : splits_(test::random_splits(101, 40, kPixels)) {
        config_.train = GetParam().train;
        config_.train.batch = kBatch;
        config_.model.encoder_hidden = {31};
        config_.model.latent = 5;
        config_.model.decoder_hidden = {17};
        config_.model.activation = Activation::tanh;
    }

    ParameterLayout layout() const { return {config_.model, kPixels}; }
    std::unique_ptr<Backend> make(const Splits& splits) const {
        auto backend = GetParam().is_double ? make_cpu_double_backend(config_, layout())
                                            : make_cpu_backend(config_, layout());
        backend->set_data(splits);
        backend->set_state(test::initial_state(layout(), config_));
        return backend;
    }
    TrainRequest request(std::span<const std::uint32_t> rows, std::uint64_t step = 0) const {
        return {step, rows, kBatch, {{config_.train.learning_rate, 0.7}}};
    }

    // Of the gradient of each tensor by its name: norm 1, then the whole within clip_norm.
    std::map<std::string, double> factors(const Trace& trace) const {
        std::map<std::string, double> result;
        double total = 0;
        for (const Tensor& tensor : layout().tensors()) {
            double squares = 0;
            for (const double g : test::find(trace, "grad." + tensor.name).values) squares += g * g;
            const double norm = std::sqrt(squares);
            const double factor = config_.train.normalize_gradients ? 1 / (norm + 1e-7) : 1;
            result[tensor.name] = factor;
            total += std::pow(factor * norm, 2);
        }
        const double norm = std::sqrt(total);
        if (config_.train.clip_norm > 0 && norm > config_.train.clip_norm) {
            has_clipped_ = true;
            for (auto& [name, factor] : result) factor *= config_.train.clip_norm / norm;
        }
        return result;
    }

    Config config_;
    Splits splits_;
    mutable bool has_clipped_ = false;
};

INSTANTIATE_TEST_SUITE_P(Ways, CpuOptimizer, testing::ValuesIn(ways()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(CpuOptimizer, ThreeStepsAreTheDocumentedFormulas) {
    const auto backend = make(splits_);
    const auto rows = test::first_rows(3 * kBatch);
    std::vector<Element> elements(layout().arena_size);
    const auto start = backend->exact_parameters();
    for (std::size_t i = 0; i < elements.size(); ++i) elements[i] = {start[i], 0, 0, start[i]};
    for (std::uint64_t step = 0; step < 3; ++step) {
        const auto batch = std::span(rows).subspan(step * kBatch, kBatch);
        const Trace trace = backend->trace(request(batch, step));
        const auto scales = factors(trace);
        backend->train(request(batch, step));
        const auto parameters = backend->exact_parameters();
        const auto ema = backend->exact_ema();
        ASSERT_EQ(ema.empty(), config_.train.ema == 0);
        // Rounding of the parameter, and of an update of at most a few learning rates.
        const double bound =
            GetParam().is_double ? 1e-14 : 1e-7 + 1e-5 * config_.train.learning_rate;
        for (const Tensor& tensor : layout().tensors()) {
            const auto& gradient = test::find(trace, "grad." + tensor.name).values;
            for (std::size_t i = 0; i < tensor.size; ++i) {
                Element& element = elements[tensor.offset + i];
                step_as_documented(config_.train, static_cast<int>(step) + 1,
                                   scales.at(tensor.name) * gradient[i], element);
                ASSERT_NEAR(parameters[tensor.offset + i], element.p, bound)
                    << tensor.name << "[" << i << "]";
                // The next step's gradient is that of the backend's parameters.
                element.p = parameters[tensor.offset + i];
                if (!ema.empty()) {
                    ASSERT_NEAR(ema[tensor.offset + i], element.ema, 3 * bound)
                        << tensor.name << "[" << i << "]";
                }
            }
        }
    }
    EXPECT_EQ(has_clipped_, config_.train.clip_norm > 0);
    const TrainingState state = backend->state();
    ASSERT_EQ(state.moments.size(), moment_names(config_.train).size());
    for (const auto& arena : state.moments) {
        const auto padding = test::padding_of(layout(), arena);
        EXPECT_EQ(padding, std::vector<float>(padding.size(), 0.0F));
    }
}

TEST_P(CpuOptimizer, AStepThatIsNotFiniteChangesNothingAndIsReported) {
    Splits broken = splits_;
    broken.train = test::with_nan(splits_.train, 100);
    auto rows = test::first_rows(5 * kBatch);
    rows[2 * kBatch - 1] = 100;  // the second step
    rows[3 * kBatch] = 100;      // and the fourth
    const auto backend = make(broken);
    backend->train(request(std::span(rows).first(kBatch)));
    const TrainingState before = backend->state();
    backend->train(request(std::span(rows).subspan(kBatch, kBatch), 1));
    const TrainingState after = backend->state();
    EXPECT_EQ(after.step, 2U);
    EXPECT_EQ(after.parameters, before.parameters);
    EXPECT_EQ(after.moments, before.moments);
    EXPECT_EQ(after.ema, before.ema);
    backend->train(request(std::span(rows).subspan(2 * kBatch), 2));
    const TrainTotals totals = backend->take_totals();
    EXPECT_EQ(totals.losses.examples, 3 * kBatch);
    EXPECT_TRUE(std::isfinite(totals.losses.loss));
    EXPECT_EQ(totals.skipped.count, 2U);
    EXPECT_EQ(totals.skipped.first_step, 1U);
    EXPECT_EQ(totals.skipped.first_tensor, "encoder.0.weight");
    EXPECT_EQ(backend->take_totals().skipped.count, 0U);
    EXPECT_NE(backend->state().parameters, after.parameters);
    const auto parameters = backend->exact_parameters();
    EXPECT_TRUE(std::all_of(parameters.begin(), parameters.end(),
                            [](double value) { return std::isfinite(value); }));
}

TEST_P(CpuOptimizer, EvaluationAndGenerationUseTheAverageAndTrainingDoesNot) {
    const auto rows = test::first_rows(3 * kBatch);
    const auto backend = make(splits_);
    backend->train(request(rows));
    TrainingState averaged = backend->state();
    if (config_.train.ema > 0) {
        EXPECT_NE(averaged.ema, averaged.parameters);
        averaged.parameters = std::exchange(averaged.ema, {});
    }
    const double decay = std::exchange(config_.train.ema, 0);
    const auto other = make(splits_);
    other->set_state(averaged);
    config_.train.ema = decay;
    const double loss = other->evaluate(Split::test, 1).loss;
    // A state holds floats, of which double parameters differ by their rounding.
    const double bound = GetParam().is_double ? 1e-6 * loss : 0;
    EXPECT_NEAR(backend->evaluate(Split::test, 1).loss, loss, bound);
    const auto x = backend->examples(Split::test, test::first_rows(20));
    const Posterior ours = backend->encode(x);
    const Posterior theirs = other->encode(x);
    const auto mean = backend->decode(ours.mu);
    const auto their_mean = other->decode(ours.mu);
    const float tolerance = GetParam().is_double ? 1e-5F : 0.0F;
    for (std::size_t i = 0; i < ours.mu.size(); ++i) {
        ASSERT_NEAR(ours.mu[i], theirs.mu[i], tolerance);
        ASSERT_NEAR(ours.logvar[i], theirs.logvar[i], tolerance);
    }
    for (std::size_t i = 0; i < mean.size(); ++i) ASSERT_NEAR(mean[i], their_mean[i], tolerance);

    // A run that evaluated nothing goes on to the same parameters.
    const auto silent = make(splits_);
    silent->train(request(rows));
    for (Backend* one : {backend.get(), silent.get()}) {
        one->train(request(std::span(rows).first(kBatch), 3));
    }
    EXPECT_EQ(backend->exact_parameters(), silent->exact_parameters());
}

// Whatever the gradient, a loss that is not finite skips the step: beta times kl overflows here,
// and with beta 0 no gradient says so.
TEST(CpuOptimizerLoss, ALossThatIsNotFiniteSkipsTheStep) {
    Config config;
    config.model.encoder_hidden = {};
    config.model.decoder_hidden = {};
    config.model.latent = 2;
    // Its variance is no matter of gradients, and must stay all the same.
    config.model.likelihood = Likelihood::gaussian;
    config.model.variance = Variance::optimal;
    const ParameterLayout layout(config.model, 4);
    const Splits splits = test::random_splits(8, 0, 4);
    const auto backend = make_cpu_backend(config, layout);
    backend->set_data(splits);
    TrainingState state = test::initial_state(layout, config);
    // mu = 1e20, of which the square is infinite in float; nothing of z reaches the output.
    state.parameters[layout.heads.mu_bias.offset] = 1e20F;
    std::fill_n(state.parameters.begin() + static_cast<std::ptrdiff_t>(layout.output.weight.offset),
                layout.output.weight.size, 0.0F);
    backend->set_state(state);
    const auto rows = test::first_rows(8);
    backend->train({0, rows, 8, {{1e-3, 0.0}}});
    const TrainTotals totals = backend->take_totals();
    EXPECT_EQ(totals.losses.examples, 0U);
    EXPECT_EQ(totals.skipped.count, 1U);
    EXPECT_EQ(totals.skipped.first_tensor, "");
    EXPECT_EQ(backend->state().parameters, state.parameters);
}

template <class T>
std::vector<T> random_arena(const ParameterLayout& layout, T padding) {
    std::vector<T> values(layout.arena_size);
    fill_normal({3, Purpose::synthetic_data, 0, 1, 0}, std::span<T>(values));
    std::vector<T> arena(layout.arena_size, padding);
    for (const Tensor& tensor : layout.tensors()) {
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size,
                    arena.begin() + static_cast<std::ptrdiff_t>(tensor.offset));
    }
    return arena;
}

// Tensors below, at and above the blocks that threads take, and single elements.
ParameterLayout ragged_layout() {
    ModelConfig model;
    model.encoder_hidden = {64, 241};
    model.latent = 1;
    model.decoder_hidden = {17};
    return {model, 1024};
}

template <class T>
void expect_norms() {
    const ParameterLayout layout = ragged_layout();
    // Padding does not count.
    const auto arena = random_arena<T>(layout, std::numeric_limits<T>::quiet_NaN());
    TrainConfig train;
    train.normalize_gradients = true;
    cpu::GradientStatistics statistics(layout);
    statistics.measure(arena.data(), train);
    EXPECT_FALSE(statistics.first_bad());
    const auto tensors = layout.tensors();
    ASSERT_EQ(statistics.squares().size(), tensors.size());
    for (std::size_t t = 0; t < tensors.size(); ++t) {
        double squares = 0;
        for (std::size_t i = 0; i < tensors[t].size; ++i) {
            const auto g = static_cast<double>(arena[tensors[t].offset + i]);
            squares += g * g;
        }
        EXPECT_NEAR(statistics.squares()[t], squares, 1e-12 * squares) << tensors[t].name;
        EXPECT_NEAR(statistics.scales()[t] * (std::sqrt(squares) + 1e-7), 1, 1e-12);
    }
}

TEST(GradientStatistics, NormsOfEveryTensor) {
    expect_norms<float>();
    expect_norms<double>();
}

TEST(GradientStatistics, DoNotDependOnTheNumberOfThreads) {
    const ParameterLayout layout = ragged_layout();
    const auto arena = random_arena<float>(layout, 0);
    TrainConfig train;
    train.clip_norm = 1;
    const int threads = omp_get_max_threads();
    std::vector<std::vector<double>> seen;
    for (const int count : {1, 2, 5}) {
        omp_set_num_threads(count);
        cpu::GradientStatistics statistics(layout);
        statistics.measure(arena.data(), train);
        seen.emplace_back(statistics.scales().begin(), statistics.scales().end());
    }
    omp_set_num_threads(threads);
    EXPECT_EQ(seen[0], seen[1]);
    EXPECT_EQ(seen[0], seen[2]);
}

TEST(GradientStatistics, TheFirstBadTensorIsFoundWhereverItsElementIs) {
    const ParameterLayout layout = ragged_layout();
    const auto tensors = layout.tensors();
    cpu::GradientStatistics statistics(layout);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        for (std::size_t t = 0; t < tensors.size(); ++t) {
            auto arena = random_arena<float>(layout, 0);
            arena[tensors[t].offset + tensors[t].size - 1] = bad;
            arena[tensors.back().offset] = bad;
            statistics.measure(arena.data(), TrainConfig());
            EXPECT_EQ(statistics.first_bad(), t);
        }
    }
    // The square of a large float is beyond the largest one.
    auto arena = random_arena<float>(layout, 0);
    arena[0] = 3e38F;
    statistics.measure(arena.data(), TrainConfig());
    EXPECT_FALSE(statistics.first_bad());
}

}  // namespace
}  // namespace vae
