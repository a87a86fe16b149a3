// The CUDA backend against the double-precision CPU reference: everything that host/backend.h
// promises. Runs on a GPU, or under the emulation.
#include "host/gpu/cuda_backend.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "tests/cuda_backend_cases.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

// Relative L2 gates of FP32 against double.
constexpr double kGate = 1e-5;
constexpr double kLossGate = 1e-6;

std::vector<double> widen(std::span<const float> values) {
    return {values.begin(), values.end()};
}

std::vector<std::uint32_t> some_rows(std::size_t count) {
    std::vector<std::uint32_t> rows(count);
    for (std::size_t i = 0; i < count; ++i) rows[i] = static_cast<std::uint32_t>(i * 37 % 101);
    return rows;
}

bool is_loss(const std::string& name) {
    return name == "recon" || name == "kl" || name == "loss";
}

class CudaBackendTest : public testing::TestWithParam<test::NetworkCase> {
  protected:
    void SetUp() override {
        int devices = 0;
        const cudaError_t status = cudaGetDeviceCount(&devices);
        ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
        ASSERT_GT(devices, 0);
        cuda = std::make_unique<gpu::CudaBackend>(config, layout);
        cpu = make_cpu_double_backend(config, layout);
        for (Backend* backend : {cuda.get(), cpu.get()}) {
            backend->set_data(splits);
            backend->set_state(test::initial_state(layout, config));
        }
    }

    TrainRequest request(std::span<const std::uint32_t> rows, std::uint64_t first_step = 0) const {
        return {.first_step = first_step,
                .rows = rows,
                .batch = GetParam().batch,
                .schedule = {{.learning_rate = 1e-3, .beta = GetParam().beta}}};
    }

    const Config config = test::config_of(GetParam());
    // Differences of log-densities, which may cancel.
    bool is_estimate(const std::string& name) const {
        return name == "kl" && effective_objective(config).kl == KlTerm::sampled;
    }
    // Estimates have either sign: their sum is held to the size of recon.
    void expect_same_kl(const LossTotals& a, const LossTotals& b, double gate) const {
        const double size = is_estimate("kl") ? b.recon : b.kl;
        EXPECT_NEAR(a.kl, b.kl, gate * std::abs(size));
    }

    const Splits splits = test::make_splits(GetParam());
    const ParameterLayout layout{config.model, GetParam().pixels};
    std::unique_ptr<Backend> cuda;
    std::unique_ptr<Backend> cpu;
};

// How many dimensions have a mean KL above the floor.
std::size_t above_floor(const Trace& trace, std::size_t latent, double floor) {
    const auto& mu = test::find(trace, "mu").values;
    const auto& logvar = test::find(trace, "logvar").values;
    std::vector<double> sums(latent);
    for (std::size_t i = 0; i < mu.size(); ++i) {
        sums[i % latent] += (mu[i] * mu[i] + std::expm1(logvar[i]) - logvar[i]) / 2;
    }
    const std::size_t count = mu.size() / latent;
    const auto rows = static_cast<double>(count);
    return static_cast<std::size_t>(
        std::count_if(sums.begin(), sums.end(), [&](double sum) { return sum / rows > floor; }));
}

TEST_P(CudaBackendTest, TraceMatchesTheReference) {
    const auto rows = some_rows(GetParam().batch);
    const Trace ours = cuda->trace(request(rows, 3));
    const Trace reference = cpu->trace(request(rows, 3));
    ASSERT_EQ(ours.size(), reference.size());
    ASSERT_GT(ours.size(), layout.tensors().size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
        SCOPED_TRACE(reference[i].name);
        ASSERT_EQ(ours[i].name, reference[i].name);
        EXPECT_EQ(ours[i].shape, reference[i].shape);
        EXPECT_LE(test::relative_l2(ours[i].values, reference[i].values),
                  is_loss(ours[i].name) && !is_estimate(ours[i].name) ? kLossGate : kGate);
    }
    const ObjectiveConfig& objective = GetParam().objective;
    if (objective.uses_free_bits() && objective.free_bits_per == FreeBitsPer::dimension) {
        // Else the case would not show what it is for.
        const std::size_t above = above_floor(reference, GetParam().latent, objective.free_bits);
        EXPECT_GT(above, 0U);
        EXPECT_LT(above, GetParam().latent);
    }
}

TEST_P(CudaBackendTest, ParametersAfterTwentyStepsMatchTheReference) {
    const auto rows = some_rows(20 * GetParam().batch - GetParam().batch / 2);  // last one ragged
    cuda->train(request(rows));
    cpu->train(request(rows));
    const auto ours = cuda->exact_parameters();
    const auto reference = cpu->exact_parameters();
    for (const Tensor& tensor : layout.tensors()) {
        SCOPED_TRACE(tensor.name);
        EXPECT_LE(test::relative_l2(std::span(ours).subspan(tensor.offset, tensor.size),
                                    std::span(reference).subspan(tensor.offset, tensor.size)),
                  kGate);
    }
    const TrainingState our_state = cuda->state();
    const TrainingState reference_state = cpu->state();
    EXPECT_EQ(our_state.step, 20U);
    EXPECT_NEAR(our_state.running_mean, reference_state.running_mean,
                kGate * std::abs(reference_state.running_mean));
    EXPECT_EQ(our_state.running_mean != 0, GetParam().objective.baseline == Baseline::running_mean);
    ASSERT_EQ(our_state.moments.size(), 2U);
    for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_LE(test::relative_l2(widen(our_state.moments[i]), widen(reference_state.moments[i])),
                  kGate);
    }
    const LossTotals a = cuda->take_totals().losses;
    const LossTotals b = cpu->take_totals().losses;
    EXPECT_EQ(a.examples, rows.size());
    EXPECT_NEAR(a.recon / b.recon, 1, kLossGate);
    expect_same_kl(a, b, 10 * kLossGate);  // of parameters that differ by the gate
    EXPECT_NEAR(a.loss / b.loss, 1, kLossGate);
}

TEST_P(CudaBackendTest, PaddingStaysZero) {
    const auto rows = some_rows(2 * GetParam().batch);
    cuda->train(request(rows));
    const TrainingState state = cuda->state();
    for (const auto& arena : {state.parameters, state.moments.at(0), state.moments.at(1)}) {
        const auto padding = test::padding_of(layout, arena);
        EXPECT_EQ(padding, std::vector<float>(padding.size(), 0.0F));
    }
}

TEST_P(CudaBackendTest, EvaluationMatchesTheReferenceAndLeavesTheTrainingTotals) {
    const auto rows = some_rows(GetParam().batch);
    cuda->train(request(rows));
    cuda->set_state(test::initial_state(layout, config));
    for (const Split split : {Split::train, Split::validation, Split::test}) {
        SCOPED_TRACE(name_of(split));
        const LossTotals a = cuda->evaluate(split, GetParam().beta);
        const LossTotals b = cpu->evaluate(split, GetParam().beta);
        EXPECT_EQ(a.examples, splits.of(split).size);
        EXPECT_EQ(b.examples, splits.of(split).size);
        EXPECT_NEAR(a.recon / b.recon, 1, kLossGate);
        expect_same_kl(a, b, kLossGate);
        EXPECT_NEAR(a.loss / b.loss, 1, kLossGate);
    }
    EXPECT_EQ(cuda->take_totals().losses.examples, rows.size());
    EXPECT_EQ(cuda->take_totals().losses.examples, 0U);
}

TEST_P(CudaBackendTest, EncodingDecodingAndExamplesMatchTheReference) {
    const auto rows = some_rows(29);
    const auto x = cuda->examples(Split::train, rows);
    EXPECT_EQ(x, cpu->examples(Split::train, rows));
    const Posterior a = cuda->encode(x);
    const Posterior b = cpu->encode(x);
    EXPECT_LE(test::relative_l2(widen(a.mu), widen(b.mu)), kGate);
    EXPECT_LE(test::relative_l2(widen(a.logvar), widen(b.logvar)), kGate);
    const auto mean = cuda->decode(a.mu);
    EXPECT_EQ(mean.size(), rows.size() * GetParam().pixels);
    EXPECT_LE(test::relative_l2(widen(mean), widen(cpu->decode(a.mu))), kGate);
    EXPECT_TRUE(cuda->encode({}).mu.empty());
    EXPECT_TRUE(cuda->decode({}).empty());
    const auto outputs = cuda->outputs(a.mu);
    EXPECT_EQ(outputs.size(), rows.size() * layout.output.out);
    EXPECT_LE(test::relative_l2(widen(outputs), widen(cpu->outputs(a.mu))), kGate);
    EXPECT_TRUE(cuda->outputs({}).empty());
}

// More draws than are made at once, of rows that are not the first.
TEST_P(CudaBackendTest, DrawsOfThePosteriorMatchTheReference) {
    const std::vector<std::uint32_t> rows = {40, 3, 17};
    DrawRequest wanted;
    wanted.split = Split::train;
    wanted.rows = rows;
    wanted.draws = 70;
    wanted.seed = 21;
    wanted.wants_z = true;
    const auto all_draws = [&](Backend& backend) {
        std::vector<double> all;
        std::size_t count = 0;
        backend.draw(wanted, [&](const DrawBlock& block) {
            // Blocks may differ between backends: everything is put where it belongs.
            const std::size_t latent = GetParam().latent;
            all.resize(rows.size() * wanted.draws * (2 + latent));
            for (std::size_t i = 0; i < block.recon.size(); ++i) {
                const std::size_t row = block.first_row + i / block.draws;
                const std::size_t draw = block.first_draw + i % block.draws;
                double* const to = all.data() + (row * wanted.draws + draw) * (2 + latent);
                to[0] = block.recon[i];
                to[1] = block.log_ratio[i];
                std::copy_n(block.z.begin() + static_cast<std::ptrdiff_t>(i * latent), latent,
                            to + 2);
                ++count;
            }
        });
        EXPECT_EQ(count, rows.size() * wanted.draws);
        return all;
    };
    EXPECT_LE(test::relative_l2(all_draws(*cuda), all_draws(*cpu)), kGate);
    wanted.draws = 0;
    EXPECT_THROW(cuda->draw(wanted, [](const DrawBlock&) {}), std::invalid_argument);
}

TEST_P(CudaBackendTest, TheSameRunTwiceOrInTwoPartsGivesTheSameBits) {
    const std::uint32_t batch = GetParam().batch;
    const auto rows = some_rows(6 * batch);
    cuda->train(request(rows));
    const TrainingState whole = cuda->state();
    const LossTotals totals = cuda->take_totals().losses;

    gpu::CudaBackend other(config, layout);
    other.set_data(splits);
    other.set_state(test::initial_state(layout, config));
    other.train(request(std::span(rows).first(2 * batch)));
    const TrainingState half = other.state();
    gpu::CudaBackend resumed(config, layout);
    resumed.set_data(splits);
    resumed.set_state(half);
    resumed.train(request(std::span(rows).subspan(2 * batch), half.step));
    const TrainingState parts = resumed.state();
    EXPECT_EQ(parts.step, whole.step);
    EXPECT_EQ(parts.parameters, whole.parameters);
    EXPECT_EQ(parts.running_mean, whole.running_mean);
    EXPECT_EQ(parts.moments, whole.moments);
    LossTotals sum = other.take_totals().losses;
    sum += resumed.take_totals().losses;
    EXPECT_DOUBLE_EQ(sum.loss, totals.loss);
}

TEST_P(CudaBackendTest, EachStepHasItsLearningRateAndBeta) {
    const std::uint32_t batch = GetParam().batch;
    const auto rows = some_rows(3 * batch);
    TrainRequest all = request(rows);
    all.schedule = {{1e-3, 0.5}, {0, 1}, {1e-2, 2}};
    cuda->train(all);
    gpu::CudaBackend often(config, layout);
    often.set_data(splits);
    often.set_state(test::initial_state(layout, config));
    for (std::size_t step = 0; step < 3; ++step) {
        TrainRequest one = request(std::span(rows).subspan(step * batch, batch), step);
        one.schedule = {all.schedule[step]};
        often.train(one);
    }
    EXPECT_EQ(cuda->state().parameters, often.state().parameters);
    EXPECT_EQ(cuda->take_totals().losses.loss, often.take_totals().losses.loss);
    all.first_step = 3;
    all.schedule.pop_back();
    EXPECT_THROW(cuda->train(all), std::invalid_argument);
}

TEST_P(CudaBackendTest, RequestsThatDoNotFitAreRefused) {
    const std::vector<std::uint32_t> beyond = {0, 101};
    EXPECT_THROW(cuda->train(request(beyond)), std::invalid_argument);
    EXPECT_THROW((void)cuda->examples(Split::test, std::vector<std::uint32_t>{37}),
                 std::invalid_argument);
    TrainRequest none = request({});
    EXPECT_THROW((void)cuda->trace(none), std::invalid_argument);
    none.batch = 0;
    EXPECT_THROW(cuda->train(none), std::invalid_argument);
    EXPECT_THROW(cuda->set_state({}), std::invalid_argument);
    const auto rows = some_rows(GetParam().batch);
    EXPECT_THROW(cuda->train(request(rows, 1)), std::invalid_argument);  // the state is of step 0
    if (GetParam().latent > 1) {
        EXPECT_THROW((void)cuda->decode(std::vector<float>(1)), std::invalid_argument);
    }
    EXPECT_THROW((void)gpu::CudaBackend(config, layout).evaluate(Split::test, 1),
                 std::logic_error);  // before set_data
    EXPECT_NO_THROW(cuda->train(request({})));
    EXPECT_EQ(cuda->take_totals().losses.examples, 0U);
}

INSTANTIATE_TEST_SUITE_P(Networks, CudaBackendTest, testing::ValuesIn(test::network_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace vae
