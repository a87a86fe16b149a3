// The precisions of the GPU's matrix products, against the double-precision reference. Runs on a
// GPU, or under the emulation.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "host/gpu/cuda_backend.h"
#include "tests/cuda_backend_cases.h"
#include "tests/kernel_reference.h"

namespace vae {
namespace {

// Relative L2 gates of TF32 against double; losses are sums of many terms, whose errors average
// out.
constexpr double kGate = 2e-2;
constexpr double kLossGate = 1e-5;

const std::vector<test::NetworkCase>& cases() {
    using test::NetworkCase;
    static const std::vector<NetworkCase> all = {
        NetworkCase{.name = "even", .encoder = {64}, .latent = 8, .decoder = {64}, .pixels = 256},
        NetworkCase{.name = "ragged",
                    .encoder = {31, 17},
                    .latent = 3,
                    .decoder = {7, 29},
                    .activation = Activation::tanh,
                    .pixels = 101,
                    .batch = 13},
        NetworkCase{.name = "gated",
                    .encoder = {33},
                    .latent = 5,
                    .decoder = {24},
                    .activation = Activation::gated,
                    .objective = {.samples = 3}}};
    return all;
}

class CudaPrecisionTest : public testing::Test {
  protected:
    void SetUp() override {
        cudaDeviceProp properties = {};
        ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
        if (properties.major < 8) GTEST_SKIP() << properties.name << " has no TF32";
    }

    // A trace of one step, and the parameters after three more.
    struct Outcome {
        Trace trace;
        std::vector<float> parameters;
    };
    static Outcome outcome(Backend& backend, const test::NetworkCase& c) {
        const Config config = test::config_of(c);
        const ParameterLayout layout(config.model, c.pixels);
        const Splits splits = test::make_splits(c);
        backend.set_data(splits);
        backend.set_state(test::initial_state(layout, config));
        std::vector<std::uint32_t> rows(std::size_t{3} * c.batch);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            rows[i] = static_cast<std::uint32_t>(i * 7 % splits.train.size);
        }
        const auto request = [&](std::size_t count) {
            return TrainRequest{
                .rows = std::span(rows).first(count), .batch = c.batch, .schedule = {{1e-3, 1}}};
        };
        Outcome out;
        out.trace = backend.trace(request(c.batch));
        backend.train(request(rows.size()));
        (void)backend.take_totals();
        out.parameters = backend.state().parameters;
        return out;
    }
};

TEST_F(CudaPrecisionTest, Tf32IsWithinItsGatesAndIsNoFp32) {
    for (test::NetworkCase c : cases()) {
        c.precision = Precision::tf32;
        const Config config = test::config_of(c);
        const ParameterLayout layout(config.model, c.pixels);
        gpu::CudaBackend cuda(config, layout);
        EXPECT_EQ(cuda.precision(), Precision::tf32);
        const auto cpu = make_cpu_double_backend(config, layout);
        const Outcome ours = outcome(cuda, c);
        const Outcome reference = outcome(*cpu, c);
        ASSERT_EQ(ours.trace.size(), reference.trace.size());
        double largest = 0;
        for (std::size_t i = 0; i < ours.trace.size(); ++i) {
            const std::string& name = ours.trace[i].name;
            const double distance =
                test::relative_l2(ours.trace[i].values, reference.trace[i].values);
            const bool is_loss = name == "recon" || name == "loss";
            EXPECT_LE(distance, is_loss ? kLossGate : kGate) << c.name << ' ' << name;
            if (name.starts_with("grad.")) largest = std::max(largest, distance);
        }
        EXPECT_GT(largest, 1e-5) << c.name << ": as exact as FP32";
    }
}

TEST_F(CudaPrecisionTest, TheSameRunHasTheSameBits) {
    for (test::NetworkCase c : cases()) {
        for (const Precision precision : {Precision::fp32, Precision::tf32}) {
            c.precision = precision;
            const Config config = test::config_of(c);
            const ParameterLayout layout(config.model, c.pixels);
            gpu::CudaBackend first(config, layout);
            gpu::CudaBackend second(config, layout);
            EXPECT_EQ(outcome(first, c).parameters, outcome(second, c).parameters) << c.name;
        }
    }
}

TEST_F(CudaPrecisionTest, AutomaticIsTf32) {
    test::NetworkCase c = cases()[0];
    c.precision = Precision::automatic;
    const Config config = test::config_of(c);
    const gpu::CudaBackend backend(config, ParameterLayout(config.model, c.pixels));
    EXPECT_EQ(backend.precision(), Precision::tf32);
}

}  // namespace
}  // namespace vae
