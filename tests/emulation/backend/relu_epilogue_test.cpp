// What training does where the input of a ReLU inside a product is exactly 0, or NaN: there
// cuBLASLt's ReLU is not ours. Needs the emulation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "emulation.h"
#include "host/gpu/cuda_backend.h"
#include "tests/cuda_backend_cases.h"

namespace vae {
namespace {

using emulation::Order;

class ReluEpilogueTest : public ::testing::Test {
  protected:
    void SetUp() override { emulation::reset(); }
    void TearDown() override { emulation::reset(); }

    static test::NetworkCase network() {
        return {.name = "relu", .encoder = {40, 24}, .latent = 5, .decoder = {32}, .batch = 16};
    }
    static Config config_of(FusionPlan plan) {
        test::NetworkCase c = network();
        c.plan = plan;
        return test::config_of(c);
    }
    static ParameterLayout layout() {
        return {config_of(FusionPlan::automatic).model, network().pixels};
    }
    static void fill(TrainingState& state, const ParameterLayout& layout, const std::string& name,
                     float value) {
        for (const Tensor& tensor : layout.tensors()) {
            if (!tensor.name.ends_with(name)) continue;
            const auto first = static_cast<std::ptrdiff_t>(tensor.offset);
            std::fill_n(state.parameters.begin() + first, tensor.size, value);
        }
    }

    // What a step makes of a tensor of the parameters that holds nothing but this.
    static TrainTotals step_with(FusionPlan plan, const std::string& name, float value) {
        const Config config = config_of(plan);
        const ParameterLayout of = layout();
        gpu::CudaBackend backend(config, of);
        backend.set_data(test::make_splits(network()));
        TrainingState state = test::initial_state(of, config);
        fill(state, of, name, value);
        backend.set_state(state);
        const std::vector<std::uint32_t> rows = test::first_rows(config.train.batch);
        backend.train({0, rows, config.train.batch, {{1e-3, 1}}});
        return backend.take_totals();
    }
};

// Its max(NaN, 0) is 0: what is NaN before a ReLU is not seen behind it. A NaN in a weight of a
// layer that has one before it comes through the gradient of that one's output; one of the first
// layer, or in a bias, is a unit that is 0, and the step is taken.
TEST_F(ReluEpilogueTest, ANanBeforeItIsSeenThroughLaterWeightsAlone) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (const Order order : {Order::ascending, Order::descending}) {
        emulation::set_order(order);
        for (const char* name : {"encoder.0.weight", "encoder.0.bias", "encoder.1.weight",
                                 "encoder.1.bias", "decoder.0.weight", "decoder.0.bias"}) {
            SCOPED_TRACE(name);
            const TrainTotals ours = step_with(FusionPlan::cublas, name, nan);
            EXPECT_EQ(ours.skipped.count, 1U);
            EXPECT_EQ(ours.losses.examples, 0U);
            const bool is_seen =
                std::string(name) == "encoder.1.weight" || std::string(name) == "decoder.0.weight";
            const TrainTotals theirs = step_with(FusionPlan::epilogue, name, nan);
            EXPECT_EQ(theirs.skipped.count, is_seen ? 1U : 0U);
            EXPECT_TRUE(std::isfinite(theirs.losses.loss));
        }
        for (const char* name : {"encoder.mu.weight", "decoder.out.bias"}) {
            EXPECT_EQ(step_with(FusionPlan::epilogue, name, nan).skipped.count, 1U) << name;
        }
    }
}

// Examples of zeros under biases of zero: the slope at 0 is 0 or 1, and nothing but the gradients
// of what is exactly there differs.
TEST_F(ReluEpilogueTest, AtZeroItsSlopeIsEither) {
    Splits splits = test::make_splits(network());
    test::change_values<std::uint8_t>(
        splits.train, [](std::vector<std::uint8_t>& values) { std::ranges::fill(values, 0); });
    const ParameterLayout of = layout();
    const auto trace_of = [&](FusionPlan plan) {
        const Config config = config_of(plan);
        gpu::CudaBackend backend(config, of);
        backend.set_data(splits);
        TrainingState state = test::initial_state(of, config);
        fill(state, of, ".bias", 0);
        backend.set_state(state);
        const std::vector<std::uint32_t> rows = test::first_rows(config.train.batch);
        return backend.trace({0, rows, config.train.batch, {{1e-3, 1}}});
    };
    const Trace expected = trace_of(FusionPlan::cublas);
    for (const Order order : {Order::ascending, Order::descending}) {
        emulation::set_order(order);
        const Trace trace = trace_of(FusionPlan::epilogue);
        ASSERT_EQ(trace.size(), expected.size());
        for (std::size_t i = 0; i < trace.size(); ++i) {
            const std::string& name = trace[i].name;
            SCOPED_TRACE(name);
            if (name == "grad.encoder.0.bias" || name == "grad.encoder.1.bias") {
                const auto is_zero = [](double value) { return value == 0; };
                EXPECT_TRUE(std::ranges::all_of(expected[i].values, is_zero));
                EXPECT_EQ(std::ranges::all_of(trace[i].values, is_zero), order == Order::ascending);
            } else if (std::ranges::any_of(expected[i].values, [](double v) { return v != 0; })) {
                EXPECT_LE(test::relative_l2(trace[i].values, expected[i].values), 1e-5);
            } else {
                EXPECT_EQ(trace[i].values, expected[i].values);
            }
        }
    }
}

}  // namespace
}  // namespace vae
