// Steps of ReLU networks that meet a NaN, with each plan: by kernels of ours, which let it through,
// and inside of cuBLASLt's products, of which it is not documented what their ReLU makes of it.
// Runs on a GPU, where the report says what it does, or under the emulation.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "host/gpu/cuda_backend.h"
#include "tests/cuda_backend_cases.h"
#include "tests/kernel_reference.h"

namespace vae {
namespace {

using Way = std::tuple<FusionPlan, Precision>;

// Whether all of a ReLU is ours.
bool lets_nan_through(const std::string& plan) {
    return plan == "cublas" || plan == "fused";
}

constexpr std::size_t kPixels = 64;
constexpr std::uint32_t kBatch = 32;

Config config_of(const Way& way) {
    return test::config_of(test::NetworkCase{.name = "relu",
                                             .encoder = {48, 32},
                                             .latent = 8,
                                             .decoder = {32},
                                             .pixels = kPixels,
                                             .batch = kBatch,
                                             .precision = std::get<Precision>(way),
                                             .plan = std::get<FusionPlan>(way)});
}

class CudaNanTest : public testing::TestWithParam<Way> {
  protected:
    void SetUp() override {
        cudaDeviceProp properties = {};
        ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
        const bool needs_tensor_cores =
            config.train.precision != Precision::fp32 || config.train.plan == FusionPlan::fused;
        if (needs_tensor_cores && properties.major < 8) {
            GTEST_SKIP() << properties.name << " has no TF32 and no bf16";
        }
    }

    // The initial parameters, with a NaN in the middle of one tensor.
    TrainingState state_with_nan(std::string_view name) const {
        TrainingState state = test::initial_state(layout, config);
        for (const Tensor& tensor : layout.tensors()) {
            if (tensor.name == name) {
                state.parameters[tensor.offset + tensor.size / 2] = test::kNan;
            }
        }
        return state;
    }

    TrainRequest request() const {
        return {.rows = rows, .batch = kBatch, .schedule = {{1e-3, 1}}};
    }

    static std::size_t count_nan(const std::vector<float>& values) {
        return static_cast<std::size_t>(
            std::count_if(values.begin(), values.end(), [](float v) { return std::isnan(v); }));
    }

    static bool has_nan(const TracedTensor& tensor) {
        return std::any_of(tensor.values.begin(), tensor.values.end(),
                           [](double v) { return std::isnan(v); });
    }

    const Config config = config_of(GetParam());
    const ParameterLayout layout{config.model, kPixels};
    const Splits splits = test::random_splits(101, 37, kPixels);
    const std::vector<std::uint32_t> rows = test::first_rows(kBatch);
};

// Whatever ReLU makes of it: a step is taken only where its loss and all else that it changes are
// numbers.
TEST_P(CudaNanTest, AStepIsSkippedUnlessItsLossIsANumber) {
    gpu::CudaBackend backend(config, layout);
    backend.set_data(splits);
    std::set<std::string> of_relu;
    for (const Tensor& tensor : layout.tensors()) {
        SCOPED_TRACE(tensor.name);
        const bool is_before_relu = tensor.name.starts_with("encoder.0.") ||
                                    tensor.name.starts_with("encoder.1.") ||
                                    tensor.name.starts_with("decoder.0.");
        const TrainingState before = state_with_nan(tensor.name);
        ASSERT_EQ(count_nan(before.parameters), 1U);
        backend.set_state(before);
        backend.train(request());
        const TrainTotals totals = backend.take_totals();
        const TrainingState after = backend.state();
        EXPECT_EQ(count_nan(after.parameters), 1U);
        if (totals.skipped.count == 0) {
            EXPECT_TRUE(is_before_relu && !lets_nan_through(backend.plan())) << "taken";
            EXPECT_TRUE(std::isfinite(totals.losses.loss));
            EXPECT_EQ(totals.losses.examples, kBatch);
        } else {
            EXPECT_EQ(totals.losses.examples, 0U);
            for (std::size_t i = 0; i < after.parameters.size(); ++i) {
                if (std::isnan(before.parameters[i])) continue;
                ASSERT_EQ(after.parameters[i], before.parameters[i]) << i;
            }
        }
        if (!is_before_relu) continue;
        backend.set_state(before);
        const Trace trace = backend.trace(request());
        const std::string layer = tensor.name.substr(0, tensor.name.rfind('.'));
        of_relu.insert(has_nan(test::find(trace, layer + ".h")) ? "stays NaN" : "becomes a number");
    }
    ASSERT_FALSE(of_relu.empty());
    std::string what;
    for (const std::string& one : of_relu) what += (what.empty() ? "" : " or ") + one;
    if (lets_nan_through(backend.plan())) {
        EXPECT_EQ(what, "stays NaN");
    }
    // scripts/check_gpu shows this line.
    std::cout << "ReLU of a NaN, " << name_of(backend.precision()) << ", plan " << backend.plan()
              << ": " << what << '\n';
}

TEST_P(CudaNanTest, AStepOfAnExampleWithANanIsSkipped) {
    gpu::CudaBackend backend(config, layout);
    Splits broken = splits;
    broken.train = test::with_nan(splits.train, 3);
    backend.set_data(broken);
    const TrainingState before = test::initial_state(layout, config);
    backend.set_state(before);
    backend.train(request());
    const TrainTotals totals = backend.take_totals();
    EXPECT_EQ(totals.skipped.count, 1U);
    EXPECT_EQ(totals.losses.examples, 0U);
    EXPECT_EQ(backend.state().parameters, before.parameters);
}

std::string name_of_way(const testing::TestParamInfo<Way>& way) {
    return std::string(name_of(std::get<FusionPlan>(way.param))) + "_" +
           name_of(std::get<Precision>(way.param));
}

INSTANTIATE_TEST_SUITE_P(
    Ways, CudaNanTest,
    testing::Combine(testing::Values(FusionPlan::cublas, FusionPlan::epilogue, FusionPlan::fused),
                     testing::Values(Precision::fp32, Precision::tf32, Precision::bf16)),
    name_of_way);

}  // namespace
}  // namespace vae
