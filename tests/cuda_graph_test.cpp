// Steps replayed from a captured graph are the steps that are given one by one, bit for bit,
// whatever changes from step to step and however many are in a graph.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/gpu/cuda_backend.h"
#include "host/shuffle.h"
#include "tests/cuda_backend_cases.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

struct Outcome {
    TrainingState state;
    TrainTotals totals;
};

class CudaGraphTest : public testing::TestWithParam<test::NetworkCase> {
  protected:
    void SetUp() override {
        cudaDeviceProp device = {};
        ASSERT_EQ(cudaGetDeviceProperties(&device, 0), cudaSuccess);
        const bool needs_tensor_cores =
            GetParam().precision != Precision::fp32 || GetParam().plan == FusionPlan::fused;
        if (needs_tensor_cores && device.major < 8) {
            GTEST_SKIP() << device.name << " has no TF32 and no bf16";
        }
    }

    // Every step its own, as a schedule may have it.
    static std::vector<StepSchedule> schedule(std::size_t steps) {
        std::vector<StepSchedule> result;
        for (std::size_t i = 0; i < steps; ++i) {
            result.push_back({1e-3 / static_cast<double>(i + 1), 0.2 * static_cast<double>(i)});
        }
        return result;
    }

    // Two epochs, the second in two parts.
    Outcome train(std::uint32_t graph_steps, gpu::Stepping stepping) const {
        Config own = config;
        own.train.graph_steps = graph_steps;
        own.train.optimizer = Optimizer::adamw;
        own.train.weight_decay = 0.1;
        own.train.ema = 0.9;
        gpu::CudaBackend backend(own, layout);
        backend.set_stepping(stepping);
        backend.set_data(splits);
        TrainConfig& train = own.train;
        backend.set_state(
            start_state(train, initial_parameters(layout, own.model.initialization, train.seed)));
        const auto size = static_cast<std::uint32_t>(splits.train.size);
        const std::uint64_t per_epoch = steps_per_epoch(size, train.batch);
        backend.train({0, {}, train.batch, schedule(per_epoch), {0, 0, size}});
        const std::uint64_t before = per_epoch / 2;
        const auto middle = static_cast<std::uint32_t>(before * train.batch);
        backend.train({per_epoch, {}, train.batch, schedule(before), {1, 0, middle}});
        backend.train({per_epoch + before,
                       {},
                       train.batch,
                       schedule(per_epoch - before),
                       {1, middle, size - middle}});
        const TrainTotals totals = backend.take_totals();
        return {backend.state(), totals};
    }

    static void expect_same(const Outcome& a, const Outcome& b) {
        test::expect_same(a.state, b.state);
        test::expect_same(a.totals.losses, b.totals.losses);
    }

    const Config config = test::config_of(GetParam());
    const Splits splits = test::make_splits(GetParam());
    const ParameterLayout layout{config.model, GetParam().pixels};
};

TEST_P(CudaGraphTest, ReplayGivesTheBitsOfEagerSteps) {
    const Outcome eager = train(0, gpu::Stepping::eager);
    EXPECT_EQ(eager.totals.losses.examples, 2 * splits.train.size);
    EXPECT_EQ(eager.totals.skipped.count, 0U);
    for (const std::uint32_t steps : {2U, 64U}) {
        SCOPED_TRACE(steps);
        expect_same(train(steps, gpu::Stepping::graphs), eager);
    }
}

TEST_P(CudaGraphTest, APartOfAnEpochIsItsRows) {
    const auto size = static_cast<std::uint32_t>(splits.train.size);
    const std::vector<std::uint32_t> rows = shuffled_rows(config.train.seed, 5, size);
    gpu::CudaBackend given(config, layout);
    gpu::CudaBackend computed(config, layout);
    for (gpu::CudaBackend* backend : {&given, &computed}) {
        backend->set_data(splits);
        backend->set_state(test::initial_state(layout, config));
    }
    const std::uint32_t batch = config.train.batch;
    given.train({0, std::span(rows).subspan(7), batch, {{1e-3, 1}}});
    computed.train({0, {}, batch, {{1e-3, 1}}, {5, 7, size - 7}});
    EXPECT_EQ(given.state().parameters, computed.state().parameters);
}

// A batch in parts is the batch to rounding: the same examples, noise and scale.
TEST_P(CudaGraphTest, MicroBatchesAreOneBatchToRounding) {
    // Refused: what looks at whole batches.
    if (config.objective.uses_free_bits() || config.model.variance == Variance::optimal ||
        config.objective.baseline == Baseline::running_mean) {
        GTEST_SKIP() << "needs whole batches";
    }
    Config own = config;
    own.train.micro_batches = 3;  // does not divide the batch
    gpu::CudaBackend whole(config, layout);
    gpu::CudaBackend parts(own, layout);
    const auto size = static_cast<std::uint32_t>(splits.train.size);
    for (gpu::CudaBackend* backend : {&whole, &parts}) {
        backend->set_data(splits);
        backend->set_state(test::initial_state(layout, config));
        backend->train({0, {}, config.train.batch, {{1e-3, GetParam().beta}}, {0, 0, size}});
    }
    const TrainTotals a = whole.take_totals();
    const TrainTotals b = parts.take_totals();
    EXPECT_EQ(a.losses.examples, b.losses.examples);
    // Parameters of up to 13 steps that differ by rounding: gates of the precision.
    const bool is_fp32 = GetParam().precision == Precision::fp32;
    EXPECT_NEAR(a.losses.loss / b.losses.loss, 1, is_fp32 ? 1e-5 : 1e-4);
    const TrainingState one = whole.state();
    const TrainingState three = parts.state();
    const auto widen = [](const std::vector<float>& v) {
        return std::vector<double>(v.begin(), v.end());
    };
    EXPECT_LE(test::relative_l2(widen(three.parameters), widen(one.parameters)),
              is_fp32 ? 1e-5 : 1e-2);
}

// The steps that are measured are the run's, and everything that they launch is in the profile.
TEST_P(CudaGraphTest, AProfileHasEveryLaunch) {
    gpu::CudaBackend measured(config, layout);
    gpu::CudaBackend plain(config, layout);
    for (gpu::CudaBackend* backend : {&measured, &plain}) {
        backend->set_data(splits);
        backend->set_state(test::initial_state(layout, config));
    }
    const std::uint32_t batch = config.train.batch;
    const auto whole = static_cast<std::uint32_t>(splits.train.size) / batch;
    const TrainRequest request = {0, {}, batch, {{1e-3, 1}}, {0, 0, whole * batch}};
    if (whole < kLeastProfiledSteps) {
        EXPECT_THROW(measured.profile(request), std::invalid_argument);
        return;
    }
    const StepProfile profile = measured.profile(request);
    plain.train(request);
    EXPECT_EQ(measured.state().parameters, plain.state().parameters);
    EXPECT_GE(profile.steps, static_cast<int>((whole - 1) / 3));
    EXPECT_GT(profile.step_microseconds, 0);
    EXPECT_GT(profile.serial_step_microseconds, 0);
    EXPECT_GE(profile.event_microseconds, 0);
    double products = 0;
    double before = std::numeric_limits<double>::infinity();
    for (const KernelTime& kernel : profile.kernels) {
        EXPECT_GE(kernel.microseconds, 0) << kernel.name;
        EXPECT_LE(kernel.microseconds, before) << kernel.name;
        before = kernel.microseconds;
        const bool is_product =
            kernel.name.starts_with("product ") || kernel.name.starts_with("dense_");
        if (is_product) products += kernel.launches;
    }
    // Of each layer forward, of its weight, and of its input unless that is the data; or it is
    // learned.
    const std::size_t layers = layout.encoder.size() + layout.decoder.size() + 2;
    const std::size_t inputs = config.model.prior == Prior::vamp ? layers : layers - 1;
    EXPECT_EQ(products, static_cast<double>(2 * layers + inputs));
}

// A trace is of one part: what does not fit into the buffers is refused.
TEST(CudaMicroBatches, ATraceOfMoreThanAPartIsRefused) {
    test::NetworkCase c{.name = "large", .encoder = {4}, .latent = 2, .decoder = {4}, .pixels = 3};
    c.batch = 9000;
    Config config = test::config_of(c);
    config.train.micro_batches = 2;
    const ParameterLayout layout(config.model, c.pixels);
    gpu::CudaBackend backend(config, layout);
    const Splits splits = test::make_splits(c);
    backend.set_data(splits);
    backend.set_state(test::initial_state(layout, config));
    std::vector<std::uint32_t> rows(c.batch);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint32_t>(i % 101);
    EXPECT_THROW((void)backend.trace({0, rows, c.batch, {{1e-3, 1}}}), std::invalid_argument);
    rows.resize(config.train.part_rows());
    EXPECT_FALSE(backend.trace({0, rows, c.batch, {{1e-3, 1}}}).empty());
}

// Hidden layers in each way, in both storages; pseudo-inputs are rows of the encoder behind those
// of the batch.
std::vector<test::NetworkCase> plan_cases() {
    const test::NetworkCase deep = {
        .name = "", .encoder = {40, 17}, .latent = 5, .decoder = {24, 129}, .prior = Prior::vamp};
    std::vector<test::NetworkCase> all;
    const auto add = [&](const char* name, Precision precision, FusionPlan plan) {
        test::NetworkCase& c = all.emplace_back(deep);
        c.name = name;
        c.precision = precision;
        c.plan = plan;
    };
    add("cublas", Precision::fp32, FusionPlan::cublas);
    add("epilogue", Precision::fp32, FusionPlan::epilogue);
    add("cublas_bf16", Precision::bf16, FusionPlan::cublas);
    add("epilogue_bf16", Precision::bf16, FusionPlan::epilogue);
    add("fused", Precision::fp32, FusionPlan::fused);
    add("fused_tf32", Precision::tf32, FusionPlan::fused);
    add("fused_bf16", Precision::bf16, FusionPlan::fused);
    return all;
}

INSTANTIATE_TEST_SUITE_P(Plans, CudaGraphTest, testing::ValuesIn(plan_cases()),
                         [](const auto& network) { return std::string(network.param.name); });

INSTANTIATE_TEST_SUITE_P(Networks, CudaGraphTest, testing::ValuesIn(test::network_cases()),
                         [](const auto& network) { return std::string(network.param.name); });

}  // namespace
}  // namespace vae
