// Each way to train on the CUDA backend, against the double-precision CPU reference: optimisers,
// what is done to gradients, skipped steps and the average of the parameters. Runs on a GPU, or
// under the emulation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "host/gpu/cuda_backend.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

// Relative L2 gates of FP32 against double.
constexpr double kGate = 1e-5;
constexpr double kLossGate = 1e-6;
constexpr std::uint32_t kBatch = 16;
constexpr std::size_t kPixels = 33;

Config network_trained(const TrainConfig& train) {
    Config config;
    config.model.encoder_hidden = {40, 9};
    config.model.latent = 5;
    config.model.decoder_hidden = {23};
    config.model.activation = Activation::tanh;
    // Narrow enough for some log-variances to be clamped.
    config.model.logvar_min = -0.2;
    config.model.logvar_max = 0.25;
    config.train = train;
    config.train.batch = kBatch;
    config.train.precision = Precision::fp32;
    config.train.seed = 77;
    return config;
}

std::vector<double> widen(std::span<const float> values) {
    return {values.begin(), values.end()};
}

std::vector<std::uint32_t> some_rows(std::size_t count) {
    std::vector<std::uint32_t> rows(count);
    for (std::size_t i = 0; i < count; ++i) rows[i] = static_cast<std::uint32_t>(i * 37 % 101);
    return rows;
}

// One network of bytes, trained in every way.
class CudaTrainingTest : public testing::TestWithParam<std::pair<std::string, TrainConfig>> {
  protected:
    CudaTrainingTest() {
        for (Backend* backend : {cuda().get(), cpu().get()}) start(*backend, splits);
    }

    const std::unique_ptr<Backend>& cuda() {
        if (!cuda_) cuda_ = std::make_unique<gpu::CudaBackend>(config, layout);
        return cuda_;
    }
    const std::unique_ptr<Backend>& cpu() {
        if (!cpu_) cpu_ = make_cpu_double_backend(config, layout);
        return cpu_;
    }
    void start(Backend& backend, const Splits& data) const {
        backend.set_data(data);
        backend.set_state(test::initial_state(layout, config));
    }
    TrainRequest request(std::span<const std::uint32_t> rows, std::uint64_t first_step = 0) const {
        return {first_step, rows, kBatch, {{config.train.learning_rate, 0.7}}};
    }

    const Config config = network_trained(GetParam().second);
    const Splits splits = test::random_splits(101, 37, kPixels);
    const ParameterLayout layout{config.model, kPixels};

  private:
    std::unique_ptr<Backend> cuda_;
    std::unique_ptr<Backend> cpu_;
};

TEST_P(CudaTrainingTest, StateAfterTwentyStepsMatchesTheReference) {
    const auto rows = some_rows(20 * kBatch);
    cuda()->train(request(rows));
    cpu()->train(request(rows));
    const TrainingState ours = cuda()->state();
    const TrainingState reference = cpu()->state();
    const auto expect_close = [&](const std::vector<float>& a, const std::vector<float>& b) {
        ASSERT_EQ(a.size(), b.size());
        for (const Tensor& tensor : layout.tensors()) {
            const auto part = [&](const std::vector<float>& arena) {
                return widen(std::span(arena).subspan(tensor.offset, tensor.size));
            };
            EXPECT_LE(test::relative_l2(part(a), part(b)), kGate) << tensor.name;
        }
    };
    expect_close(ours.parameters, reference.parameters);
    ASSERT_EQ(ours.moments.size(), moment_names(config.train).size());
    for (std::size_t i = 0; i < ours.moments.size(); ++i) {
        expect_close(ours.moments[i], reference.moments.at(i));
    }
    EXPECT_EQ(ours.ema.empty(), config.train.ema == 0);
    if (config.train.ema > 0) {
        expect_close(ours.ema, reference.ema);
        EXPECT_NE(ours.ema, ours.parameters);
        EXPECT_EQ(cuda()->exact_ema(), widen(ours.ema));
    } else {
        EXPECT_TRUE(cuda()->exact_ema().empty());
    }
    for (const auto& arena : ours.moments) {
        const auto padding = test::padding_of(layout, arena);
        EXPECT_EQ(padding, std::vector<float>(padding.size(), 0.0F));
    }
    EXPECT_EQ(cuda()->take_totals().skipped.count, 0U);
    const LossTotals a = cuda()->evaluate(Split::test, 1);
    const LossTotals b = cpu()->evaluate(Split::test, 1);
    EXPECT_NEAR(a.loss / b.loss, 1, 10 * kLossGate);  // of parameters that differ by the gate
}

TEST_P(CudaTrainingTest, TheSameRunTwiceOrInTwoPartsGivesTheSameBits) {
    const auto rows = some_rows(6 * kBatch);
    cuda()->train(request(rows));
    const TrainingState whole = cuda()->state();
    gpu::CudaBackend first(config, layout);
    start(first, splits);
    first.train(request(std::span(rows).first(2 * kBatch)));
    gpu::CudaBackend second(config, layout);
    second.set_data(splits);
    second.set_state(first.state());
    second.train(request(std::span(rows).subspan(2 * kBatch), 2));
    const TrainingState parts = second.state();
    EXPECT_EQ(parts.parameters, whole.parameters);
    EXPECT_EQ(parts.moments, whole.moments);
    EXPECT_EQ(parts.ema, whole.ema);
}

TEST_P(CudaTrainingTest, ClosedTotalsAreApart) {
    const auto rows = some_rows(3 * kBatch);
    for (Backend* backend : {cuda().get(), cpu().get()}) {
        SCOPED_TRACE(backend->name());
        backend->train(request(std::span(rows).first(kBatch)));
        backend->close_totals();
        backend->train(request(std::span(rows).subspan(kBatch), 1));
        backend->close_totals();
        EXPECT_THROW(backend->close_totals(), std::logic_error);
        EXPECT_EQ(backend->take_totals().losses.examples, kBatch);
        EXPECT_EQ(backend->take_totals().losses.examples, 2 * kBatch);
        EXPECT_EQ(backend->take_totals().losses.examples, 0U);
    }
}

// Steps 1 and 3 of five have an example with a NaN.
TEST_P(CudaTrainingTest, AStepThatIsNotFiniteChangesNothingAndIsReported) {
    Splits broken = splits;
    broken.train = test::with_nan(splits.train, 100);
    auto rows = test::first_rows(5 * kBatch);
    rows[2 * kBatch - 1] = 100;
    rows[3 * kBatch] = 100;
    for (Backend* backend : {cuda().get(), cpu().get()}) {
        SCOPED_TRACE(backend->name());
        start(*backend, broken);
        backend->train(request(std::span(rows).first(kBatch)));
        const TrainingState before = backend->state();
        EXPECT_EQ(backend->take_totals().losses.examples, kBatch);
        backend->train(request(std::span(rows).subspan(kBatch, kBatch), 1));
        const TrainingState after = backend->state();
        EXPECT_EQ(after.step, 2U);
        EXPECT_EQ(after.parameters, before.parameters);
        EXPECT_EQ(after.moments, before.moments);
        EXPECT_EQ(after.ema, before.ema);
        const TrainTotals none = backend->take_totals();
        EXPECT_EQ(none.losses.examples, 0U);
        EXPECT_EQ(none.losses.loss, 0);
        EXPECT_EQ(none.skipped.count, 1U);

        backend->set_state(test::initial_state(layout, config));
        backend->train(request(rows));
        const TrainTotals totals = backend->take_totals();
        EXPECT_EQ(totals.losses.examples, 3 * kBatch);
        EXPECT_TRUE(std::isfinite(totals.losses.loss));
        EXPECT_EQ(totals.skipped.count, 2U);
        EXPECT_EQ(totals.skipped.first_step, 1U);
        EXPECT_EQ(totals.skipped.first_tensor, "encoder.0.weight");
        EXPECT_EQ(backend->take_totals().skipped.count, 0U);
    }
    const auto ours = cuda()->exact_parameters();
    EXPECT_LE(test::relative_l2(ours, cpu()->exact_parameters()), kGate);
    EXPECT_TRUE(std::all_of(ours.begin(), ours.end(), [](double v) { return std::isfinite(v); }));
}

TEST_P(CudaTrainingTest, EvaluationAndGenerationUseTheAverageAndTrainingDoesNot) {
    const auto rows = some_rows(3 * kBatch);
    cuda()->train(request(rows));
    TrainingState averaged = cuda()->state();
    Config plain = config;
    plain.train.ema = 0;
    if (config.train.ema > 0) averaged.parameters = std::exchange(averaged.ema, {});
    gpu::CudaBackend other(plain, layout);
    other.set_data(splits);
    other.set_state(averaged);
    EXPECT_EQ(cuda()->evaluate(Split::test, 1).loss, other.evaluate(Split::test, 1).loss);
    const auto x = cuda()->examples(Split::test, test::first_rows(20));
    const Posterior posterior = cuda()->encode(x);
    EXPECT_EQ(posterior.mu, other.encode(x).mu);
    EXPECT_EQ(cuda()->decode(posterior.mu), other.decode(posterior.mu));

    // A run that evaluated nothing goes on to the same parameters.
    const auto more = std::span(rows).first(kBatch);
    gpu::CudaBackend silent(config, layout);
    start(silent, splits);
    silent.train(request(rows));
    silent.train(request(more, 3));
    cuda()->train(request(more, 3));
    EXPECT_EQ(cuda()->exact_parameters(), silent.exact_parameters());
}

INSTANTIATE_TEST_SUITE_P(Ways, CudaTrainingTest, testing::ValuesIn(test::ways_to_train()),
                         [](const auto& tested) { return tested.param.first; });

}  // namespace
}  // namespace vae
