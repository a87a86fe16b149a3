// The precisions of the GPU's matrix products, against the double-precision reference. Runs on a
// GPU, or under the emulation.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "host/gpu/cuda_backend.h"
#include "tests/cuda_backend_cases.h"
#include "tests/kernel_reference.h"

namespace vae {
namespace {

// Relative L2 gates against double; losses are sums of many terms, whose errors average out.
// `least` is what the worst gradient of large_case() is above: or it was not the precision that was
// asked.
struct Gates {
    Precision precision;
    double gate;
    double loss;
    double least;
};
constexpr Gates kGates[] = {{Precision::tf32, 2e-2, 1e-5, 1e-5},
                            {Precision::bf16, 1e-1, 1e-4, 1e-3}};

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
        NetworkCase{.name = "deep",
                    .encoder = {33, 40},
                    .latent = 5,
                    .decoder = {24, 17},
                    .objective = {.samples = 2},
                    .plan = FusionPlan::epilogue},
        NetworkCase{.name = "gated",
                    .encoder = {33},
                    .latent = 5,
                    .decoder = {24},
                    .activation = Activation::gated,
                    .objective = {.samples = 3}}};
    return all;
}

// Its products are aligned and large enough to be computed on tensor cores; smaller ones cuBLASLt
// may compute in FP32 where TF32 is asked for.
test::NetworkCase large_case() {
    return {.name = "large",
            .encoder = {512},
            .latent = 32,
            .decoder = {512},
            .pixels = 784,
            .batch = 256};
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

TEST_F(CudaPrecisionTest, EachIsWithinItsGatesAndIsNoFp32) {
    for (const Gates& gates : kGates) {
        std::vector<test::NetworkCase> all = cases();
        all.push_back(large_case());
        for (test::NetworkCase& c : all) {
            SCOPED_TRACE(testing::Message()
                         << c.name << ", precision " << static_cast<int>(gates.precision));
            c.precision = gates.precision;
            const Config config = test::config_of(c);
            const ParameterLayout layout(config.model, c.pixels);
            gpu::CudaBackend cuda(config, layout);
            EXPECT_EQ(cuda.precision(), gates.precision);
            const auto cpu = make_cpu_double_backend(config, layout);
            const Outcome ours = outcome(cuda, c);
            const Outcome reference = outcome(*cpu, c);
            ASSERT_EQ(ours.trace.size(), reference.trace.size());
            double largest = 0;
            for (std::size_t i = 0; i < ours.trace.size(); ++i) {
                const std::string& name = ours.trace[i].name;
                const double distance =
                    test::relative_l2(ours.trace[i].values, reference.trace[i].values);
                const double gate = name == "loss"    ? gates.loss
                                    : name == "recon" ? 10 * gates.loss
                                                      : gates.gate;
                EXPECT_LE(distance, gate) << name;
                if (name.starts_with("grad.")) largest = std::max(largest, distance);
            }
            if (c.name == std::string_view(large_case().name)) {
                EXPECT_GT(largest, gates.least) << "as exact as another precision";
            }
        }
    }
}

// What evaluation and generation read in bf16 are the parameters as they are now, or their average.
TEST_F(CudaPrecisionTest, EvaluationInBf16FollowsTheParameters) {
    for (const auto& [network, ema] :
         {std::pair(1, 0.0), std::pair(1, 0.5), std::pair(2, 0.0), std::pair(2, 0.5)}) {
        test::NetworkCase c = cases()[static_cast<std::size_t>(network)];
        c.precision = Precision::bf16;
        Config config = test::config_of(c);
        config.train.ema = ema;
        const ParameterLayout layout(config.model, c.pixels);
        gpu::CudaBackend cuda(config, layout);
        const auto cpu = make_cpu_double_backend(config, layout);
        const Splits splits = test::make_splits(c);
        cuda.set_data(splits);
        cuda.set_state(
            start_state(config.train, initial_parameters(layout, config.model.initialization, 3)));
        cuda.train({0, {}, c.batch, {{1e-2, 1}}, {0, 0, 5 * c.batch}});
        cpu->set_data(splits);
        cpu->set_state(cuda.state());
        const std::vector<float> z(2 * c.latent, 0.7F);
        const std::vector<float> x(2 * c.pixels, 0.3F);
        const auto expect_close = [](const std::vector<float>& a, const std::vector<float>& b) {
            const std::vector<double> ours(a.begin(), a.end());
            const std::vector<double> reference(b.begin(), b.end());
            EXPECT_LE(test::relative_l2(ours, reference), 2e-2);
        };
        const double loss = cuda.evaluate(Split::test, 1).loss;
        EXPECT_NEAR(loss / cpu->evaluate(Split::test, 1).loss, 1, 1e-3);
        expect_close(cuda.decode(z), cpu->decode(z));
        expect_close(cuda.encode(x).mu, cpu->encode(x).mu);
        EXPECT_EQ(cuda.evaluate(Split::test, 1).loss, loss);
    }
}

TEST_F(CudaPrecisionTest, TheSameRunHasTheSameBits) {
    for (test::NetworkCase c : cases()) {
        for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
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
