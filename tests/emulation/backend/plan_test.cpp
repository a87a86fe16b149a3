// Which products of hidden layers get an epilogue: decided by counting the kernels of a cuBLASLt
// that the test makes fuse, or not. Needs the emulation.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "emulation.h"
#include "host/error.h"
#include "host/gpu/cuda_backend.h"
#include "host/gpu/matmul_cache.h"
#include "host/gpu/matmul_tuning.h"
#include "tests/cuda_backend_cases.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using emulation::EpilogueWay;

class PlanTest : public ::testing::Test {
  protected:
    void SetUp() override { emulation::reset(); }
    void TearDown() override { emulation::reset(); }

    static Config config_of(Precision precision, FusionPlan plan) {
        test::NetworkCase c = network();
        c.precision = precision;
        c.plan = plan;
        return test::config_of(c);
    }
    static test::NetworkCase network() {
        return {.name = "relu", .encoder = {40, 24}, .latent = 5, .decoder = {32}, .batch = 16};
    }

    static std::string plan_of(Precision precision, FusionPlan plan) {
        return gpu::CudaBackend(config_of(precision, plan), layout()).plan();
    }

    static ParameterLayout layout() {
        return {config_of(Precision::fp32, FusionPlan::automatic).model, network().pixels};
    }

    // A step's trace, and the loss of an evaluation whose batches have other rows.
    struct Outcome {
        Trace trace;
        double loss = 0;
    };
    static Outcome outcome_of(gpu::CudaBackend& backend, const Config& config) {
        backend.set_data(splits());
        backend.set_state(test::initial_state(layout(), config));
        Outcome outcome;
        const std::vector<std::uint32_t> rows = test::first_rows(config.train.batch);
        outcome.trace = backend.trace({0, rows, config.train.batch, {{1e-3, 1}}});
        outcome.loss = backend.evaluate(Split::test, 1).loss;
        return outcome;
    }
    static const Splits& splits() {
        static const Splits made = test::make_splits(network());
        return made;
    }

    // Every tensor, the gradients among them, within a fifth of the gate of bf16.
    static void expect_near(const Outcome& a, const Outcome& b) {
        ASSERT_EQ(a.trace.size(), b.trace.size());
        for (std::size_t i = 0; i < a.trace.size(); ++i) {
            EXPECT_LE(test::relative_l2(a.trace[i].values, b.trace[i].values), 2e-2)
                << a.trace[i].name;
        }
        EXPECT_NEAR(a.loss / b.loss, 1, 1e-4);
    }
};

TEST_F(PlanTest, AutoTakesWhatIsFused) {
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::automatic), "cublas");
    EXPECT_EQ(plan_of(Precision::tf32, FusionPlan::automatic), "cublas");
    EXPECT_EQ(plan_of(Precision::bf16, FusionPlan::automatic), "epilogue");
    for (const auto epilogue :
         {CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_DRELU, CUBLASLT_EPILOGUE_BGRADB}) {
        emulation::set_epilogue(epilogue, EpilogueWay::fused);
    }
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::automatic), "epilogue");
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::cublas), "cublas");
}

TEST_F(PlanTest, TheBackwardNeedsAllOfItsEpilogues) {
    for (const EpilogueWay way : {EpilogueWay::apart, EpilogueWay::none}) {
        emulation::reset();
        emulation::set_epilogue(CUBLASLT_EPILOGUE_DRELU, way);
        EXPECT_EQ(plan_of(Precision::bf16, FusionPlan::automatic), "epilogue in 3 of 9 products");
        emulation::reset();
        emulation::set_epilogue(CUBLASLT_EPILOGUE_BGRADB, way);
        EXPECT_EQ(plan_of(Precision::bf16, FusionPlan::automatic), "epilogue in 3 of 9 products");
        emulation::reset();
        emulation::set_epilogue(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, way);
        EXPECT_EQ(plan_of(Precision::bf16, FusionPlan::automatic), "cublas") << "it has no bits";
    }
}

// Of a large layer the backward's epilogues lose more on new GPUs than they save, and the forward's
// goes alone; who asks gets them all the same.
TEST_F(PlanTest, AutoKeepsTheBackwardOfLargeLayersOnNewGpusApart) {
    const auto plan_of_batch = [](std::uint32_t batch, FusionPlan plan, int major) {
        emulation::set_compute_capability(major, 0);
        Config config = config_of(Precision::bf16, plan);
        config.model.encoder_hidden = {1024, 512};
        config.train.batch = batch;
        return gpu::CudaBackend(config, ParameterLayout(config.model, network().pixels)).plan();
    };
    // The second layer's backward is 2·512·(1024 + heads) operations an example.
    EXPECT_EQ(plan_of_batch(1024, FusionPlan::automatic, 9), "epilogue");
    EXPECT_EQ(plan_of_batch(2048, FusionPlan::automatic, 9), "epilogue in 5 of 9 products");
    EXPECT_EQ(plan_of_batch(2048, FusionPlan::automatic, 10), "epilogue in 5 of 9 products");
    EXPECT_EQ(plan_of_batch(2048, FusionPlan::automatic, 8), "epilogue");
    EXPECT_EQ(plan_of_batch(2048, FusionPlan::epilogue, 9), "epilogue");
}

// A refusal of the library is an answer: nothing that nobody asked for ends a run.
TEST_F(PlanTest, AutoDoesWithoutWhatIsRefused) {
    for (const int status : {CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_INVALID_VALUE}) {
        for (const char* call : {"cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"}) {
            emulation::reset();
            emulation::fail_call(call, 1, status);  // of the first layer forward
            EXPECT_EQ(plan_of(Precision::bf16, FusionPlan::automatic),
                      "epilogue in 6 of 9 products");
        }
    }
}

// Whoever asks for epilogues gets those that there are, however many kernels they take.
TEST_F(PlanTest, EpilogueTakesWhatThereIs) {
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::epilogue), "epilogue");
    emulation::set_epilogue(CUBLASLT_EPILOGUE_BGRADB, EpilogueWay::none);
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::epilogue), "epilogue in 3 of 9 products");
    emulation::set_epilogue(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, EpilogueWay::none);
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::epilogue), "cublas");
}

// Whoever asks for products of ours gets them, in every precision and of every activation, whatever
// cuBLASLt has.
TEST_F(PlanTest, FusedTakesAllLayers) {
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
        for (const Activation activation :
             {Activation::relu, Activation::tanh, Activation::softplus, Activation::gelu,
              Activation::silu, Activation::gated}) {
            Config config = config_of(precision, FusionPlan::fused);
            config.model.activation = activation;
            const ParameterLayout own(config.model, network().pixels);
            EXPECT_EQ(gpu::CudaBackend(config, own).plan(), "fused");
        }
    }
    // Without hidden layers what is around the latents, if any of it has such kernels.
    Config linear = config_of(Precision::fp32, FusionPlan::fused);
    linear.model.encoder_hidden = linear.model.decoder_hidden = {};
    const auto plan_of_linear = [&linear] {
        return gpu::CudaBackend(linear, ParameterLayout(linear.model, network().pixels)).plan();
    };
    EXPECT_EQ(plan_of_linear(), "fused");
    linear.objective.bound = Bound::iwae;
    EXPECT_EQ(plan_of_linear(), "cublas");
}

TEST_F(PlanTest, FusedIsOfGpusThatHaveIt) {
    emulation::set_compute_capability(7, 5);
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::automatic), "cublas");
    try {
        (void)plan_of(Precision::fp32, FusionPlan::fused);
        ADD_FAILURE() << "taken";
    } catch (const InputError& error) {
        const std::string what = error.what();
        EXPECT_NE(what.find("train.plan = \"fused\""), std::string::npos) << what;
        EXPECT_NE(what.find("7.5"), std::string::npos) << what;
    }
    emulation::set_compute_capability(8, 0);
    EXPECT_EQ(plan_of(Precision::fp32, FusionPlan::fused), "fused");
}

// Whatever is fused, the results are those of the plan without epilogues, to rounding; also where
// cuBLASLt has an epilogue for the training's rows alone.
TEST_F(PlanTest, EachPlanComputesTheSame) {
    for (const Precision precision : {Precision::fp32, Precision::bf16}) {
        const Config plain = config_of(precision, FusionPlan::cublas);
        gpu::CudaBackend reference(plain, layout());
        const Outcome expected = outcome_of(reference, plain);
        const Config config = config_of(precision, FusionPlan::epilogue);
        for (const std::uint32_t missing :
             {std::uint32_t{0}, std::uint32_t{CUBLASLT_EPILOGUE_DRELU},
              std::uint32_t{CUBLASLT_EPILOGUE_BGRADB},
              std::uint32_t{CUBLASLT_EPILOGUE_RELU_AUX_BIAS}}) {
            SCOPED_TRACE(missing);
            if (missing != 0) emulation::set_epilogue(missing, EpilogueWay::none);
            gpu::CudaBackend backend(config, layout());
            expect_near(outcome_of(backend, config), expected);
            emulation::reset();
        }
        const Config of_ours = config_of(precision, FusionPlan::fused);
        gpu::CudaBackend ours(of_ours, layout());
        expect_near(outcome_of(ours, of_ours), expected);
        gpu::CudaBackend backend(config, layout());
        EXPECT_EQ(backend.plan(), "epilogue");
        backend.set_data(splits());
        backend.set_state(test::initial_state(layout(), config));
        emulation::set_epilogue(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, EpilogueWay::none);
        EXPECT_NEAR(backend.evaluate(Split::test, 1).loss / expected.loss, 1, 1e-4);
        emulation::reset();
    }
}

// Rows that come later are counted too: what is not fused for them is not taken.
TEST_F(PlanTest, OtherRowsAreCountedWhenTheyCome) {
    const Config config = config_of(Precision::bf16, FusionPlan::automatic);
    gpu::CudaBackend backend(config, layout());
    EXPECT_EQ(backend.plan(), "epilogue");
    backend.set_data(splits());
    backend.set_state(test::initial_state(layout(), config));
    for (const auto epilogue : {CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_DRELU}) {
        emulation::set_epilogue(epilogue, EpilogueWay::apart);
    }
    (void)backend.evaluate(Split::test, 1);
    // All of an epoch, whose last batch is smaller.
    backend.train({0, {}, config.train.batch, {{1e-3, 1}}, {0, 0, 101}});
    (void)backend.take_totals();
    std::size_t plain = 0;
    for (const gpu::MatmulProduct& product : backend.products()) {
        const bool is_fused = product.epilogue != gpu::MatmulEpilogue::none;
        EXPECT_TRUE(!is_fused || product.rows == 16) << product.rows;
        plain += !is_fused && product.rows != 16 ? 1U : 0U;
    }
    EXPECT_GT(plain, 0U);
}

// A sum that is split is two kernels with an epilogue as without. What is counted is the algorithm
// that is kept, if one is.
TEST_F(PlanTest, TheAlgorithmThatIsKeptIsCounted) {
    const testing::TemporaryFolder folder;
    ASSERT_EQ(setenv("XDG_CACHE_HOME", folder.path().c_str(), 1), 0);
    const gpu::MatmulProduct product = {.kind = gpu::MatmulKind::forward,
                                        .types = gpu::MatmulTypes::bf16,
                                        .epilogue = gpu::MatmulEpilogue::bias_relu,
                                        .rows = 16,
                                        .in = 64,
                                        .out = 24};
    const auto is_fused = [&product] {
        const gpu::Stream stream;
        const gpu::MatmulLane lane(stream);
        return gpu::Matmul(Precision::bf16).is_fused(lane, product);
    };
    std::size_t splits = 0;
    for (const cublasLtMatmulAlgo_t& algorithm : gpu::MatmulPlans().candidates(product)) {
        gpu::MeasuredAlgorithm measured;
        std::memcpy(measured.words.data(), &algorithm, sizeof algorithm);
        ASSERT_TRUE(
            gpu::save_matmul_algorithms(gpu::MatmulPlans().device(), {{product, measured}}));
        splits += gpu::least_kernels(algorithm) > 1 ? 1 : 0;
        EXPECT_TRUE(is_fused());
        emulation::set_epilogue(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, EpilogueWay::apart);
        EXPECT_FALSE(is_fused());
        emulation::reset();
    }
    EXPECT_GT(splits, 0U);
    ASSERT_EQ(setenv("XDG_CACHE_HOME", "/nowhere", 1), 0);
}

// Where the library would split each sum in a way that is not to be had, its kernels are taken
// without; and where they cannot be, that is said.
TEST_F(PlanTest, WithoutAGoodSplitNothingIsSplit) {
    const gpu::MatmulProduct product = {.kind = gpu::MatmulKind::backward_weight,
                                        .types = gpu::MatmulTypes::bf16,
                                        .rows = 96,
                                        .in = 24,
                                        .out = 16};
    emulation::propose_only_serial_sums();
    gpu::MatmulPlans plans;
    const auto candidates = plans.candidates(product);
    ASSERT_EQ(candidates.size(), 1U);
    EXPECT_EQ(gpu::describe(candidates[0]).find("split"), std::string::npos);
    EXPECT_NE(plans.find(product), nullptr);
    emulation::fail_call("cublasLtMatmulAlgoCheck", 1, CUBLAS_STATUS_NOT_SUPPORTED);
    try {
        (void)gpu::MatmulPlans().of(product);
        ADD_FAILURE() << "a sum that is rounded in between was taken";
    } catch (const RunError& error) {
        EXPECT_NE(std::string(error.what()).find("adds in FP32"), std::string::npos);
    }
    emulation::reset();
    emulation::propose_only_serial_sums();
    const Config config = config_of(Precision::bf16, FusionPlan::automatic);
    gpu::CudaBackend backend(config, layout());
    const Outcome without = outcome_of(backend, config);
    emulation::reset();
    gpu::CudaBackend usual(config, layout());
    expect_near(without, outcome_of(usual, config));
}

// cuBLASLt asks for a bias that is aligned to its own type, and looks at the address when it is
// asked for an algorithm: also where the factors, of a narrower type, are not so aligned.
TEST_F(PlanTest, ABiasIsAlignedToItsTypeHoweverItsFactorsAre) {
    for (const int alignment : {2, 4, 8, 16}) {
        const gpu::MatmulProduct product = {.kind = gpu::MatmulKind::backward_weight,
                                            .types = gpu::MatmulTypes::bf16_to_fp32,
                                            .epilogue = gpu::MatmulEpilogue::bias_gradient,
                                            .rows = 16,
                                            .in = 24,
                                            .out = 40,
                                            .alignment = alignment};
        EXPECT_FALSE(gpu::MatmulPlans().candidates(product).empty()) << alignment;
    }
}

// Measuring looks at what a run computes: its plan's products, at the rows of a full batch, of the
// last one of an epoch and of evaluations.
TEST_F(PlanTest, TheProductsOfARunAreThoseOfItsPlan) {
    const auto counts = [](Precision precision, FusionPlan plan) {
        std::map<std::string, int> result;
        const Config config = config_of(precision, plan);
        for (const gpu::MatmulProduct& product : gpu::products_of_run(config, layout(), splits())) {
            ++result[std::string(gpu::name_of(product.kind)) + " " +
                     gpu::name_of(product.epilogue)];
        }
        return result;
    };
    // 101 examples are six batches of 16 and 5; 13 and 37 are held out.
    const std::map<std::string, int> plain = {
        {"forward none", 5 * 4}, {"backward-input none", 4 * 2}, {"backward-weight none", 5 * 2}};
    const std::map<std::string, int> fused = {
        {"forward none", 2 * 4},         {"forward bias-relu", 3 * 4},
        {"backward-input none", 2},      {"backward-input relu-backward", 3 * 2},
        {"backward-weight none", 2 * 2}, {"backward-weight bias-gradient", 3 * 2}};
    // The heads and the output of evaluations.
    const std::map<std::string, int> others = {{"forward none", 2 * 2}};
    EXPECT_EQ(counts(Precision::fp32, FusionPlan::automatic), plain);
    EXPECT_EQ(counts(Precision::tf32, FusionPlan::fused), others);
    EXPECT_EQ(counts(Precision::bf16, FusionPlan::automatic), fused);
    EXPECT_EQ(counts(Precision::fp32, FusionPlan::epilogue), fused);
    EXPECT_EQ(counts(Precision::bf16, FusionPlan::cublas), plain);
}

}  // namespace
}  // namespace vae
