// How the CUDA backend behaves towards the runtime: what a step calls, and what happens when a call
// fails. Needs the emulation, which counts calls and makes them fail.
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <exception>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "emulation.h"
#include "host/cuda_module.h"
#include "host/gpu/cuda_backend.h"
#include "tests/emulation/backend/small_backend.h"

extern "C" void vae_cuda_status(vae::CudaStatus& status);

namespace vae {
namespace {

constexpr std::size_t kPixels = test::kSmallPixels;

TrainRequest request_of(const std::vector<std::uint32_t>& rows) {
    return {.first_step = 0, .rows = rows, .batch = 4, .schedule = {{1e-3, 1}}};
}

class BackendConduct : public testing::Test {
  protected:
    void SetUp() override { emulation::reset(); }
    void TearDown() override { emulation::reset(); }

    TrainingState initial() const {
        return start_state(config.train, initial_parameters(layout, Initialization::pytorch, 1));
    }

    // Everything that a run does with a backend, once.
    void use_everything(DataPlacement placement) const {
        Config own = config;
        own.data.placement = placement;
        gpu::CudaBackend backend(own, layout);
        backend.set_data(splits);
        backend.set_state(initial());
        backend.train(request_of(rows));
        (void)backend.take_totals();
        (void)backend.evaluate(Split::test, 1);
        (void)backend.encode(std::vector<float>(2 * kPixels, 0.5F));
        (void)backend.decode(std::vector<float>(2 * config.model.latent, 0.5F));
        (void)backend.trace(request_of({1, 2, 3}));
        (void)backend.state();
    }

    const Config config = test::small_config();
    const Splits splits = test::small_splits(18);
    const ParameterLayout layout{config.model, kPixels};
    // With what each call is made to fail, and those that are not, of each the first ones.
    using Calls = std::map<std::string, std::uint64_t>;
    void expect_failures_are_told(DataPlacement placement, const std::map<std::string, int>& faults,
                                  Calls spared) const;

    // A step as it is, a graph of two, a graph of one, and what is left.
    const std::vector<std::uint32_t> rows = {0, 1,  2,  3,  4,  5,  6,  7,  8,
                                             9, 10, 11, 12, 13, 14, 15, 16, 17};
};

TEST_F(BackendConduct, ATrainingStepNeitherAllocatesNorWaits) {
    for (const FusionPlan plan : {FusionPlan::cublas, FusionPlan::epilogue, FusionPlan::fused}) {
        Config own = config;
        own.train.plan = plan;
        gpu::CudaBackend backend(own, layout);
        backend.set_data(splits);
        backend.set_state(initial());
        emulation::reset();
        backend.train(request_of(rows));
        EXPECT_GT(emulation::pending_operations(), 0U) << "train waited for the device";
        test::expect_not_called(
            {"Malloc", "Alloc", "Free", "StreamSynchronize", "DeviceSynchronize", "cudaMemcpy_"});
        EXPECT_EQ(backend.take_totals().losses.examples, rows.size());
    }
}

// docs/performance.md lists them.
TEST_F(BackendConduct, AStepIsElevenProductsAndElevenKernelsOrSevenOrFour) {
    for (const FusionPlan plan : {FusionPlan::cublas, FusionPlan::epilogue, FusionPlan::fused}) {
        Config own = config;
        own.train.plan = plan;
        gpu::CudaBackend backend(own, layout);
        backend.set_data(splits);
        backend.set_state(initial());
        (void)backend.take_totals();
        emulation::reset();
        backend.train(request_of({0, 1, 2, 3}));
        (void)backend.take_totals();
        // Forward: encoder, heads, decoder, output. Backward: their weights, and all inputs but x.
        const std::uint64_t products = 4 + 4 + 3;
        const std::uint64_t ours = plan == FusionPlan::fused ? products : 0;
        EXPECT_EQ(emulation::calls()["cublasLtMatmul"], products - ours);
        std::uint64_t kernels = 0;
        for (const auto& [kernel, count] : emulation::launches()) kernels += count;
        // Once for all steps of a graph: where they stand. Then: gather, two activations,
        // reparameterization, likelihood, their backward where it is not the same kernel, losses,
        // statistics of the gradients, optimiser. Activations may be inside the products, and
        // with products of ours all between them.
        const std::uint64_t activations = plan == FusionPlan::cublas ? 2 + 2 : 0;
        const std::uint64_t latents = plan == FusionPlan::fused ? 0 : 1 + 1 + 1;
        EXPECT_EQ(kernels, 1U + ours + (1U + activations + latents + 1U + 1U + 1U));
    }
}

// What starts early reads weights before the kernel ahead is done, so a pass's first product,
// behind the optimiser, must not; nor do the gradients of weights, whose factors are none.
TEST_F(BackendConduct, ProductsOfOursStartEarlyButForThoseBehindTheOptimizer) {
    using Counts = std::map<std::string, std::uint64_t>;
    const auto early_in_two_steps = [&](bool has_encoder, bool has_decoder, std::uint32_t parts) {
        Config own = config;
        own.train.plan = FusionPlan::fused;
        own.train.micro_batches = parts;
        if (!has_encoder) own.model.encoder_hidden = {};
        if (!has_decoder) own.model.decoder_hidden = {};
        const ParameterLayout of_own(own.model, kPixels);
        gpu::CudaBackend backend(own, of_own);
        backend.set_data(splits);
        backend.set_state(
            start_state(own.train, initial_parameters(of_own, Initialization::pytorch, 1)));
        emulation::reset();
        backend.train(request_of({0, 1, 2, 3, 4, 5, 6, 7}));
        (void)backend.take_totals();
        Counts result;
        for (const auto& [kernel, count] : emulation::early_launches()) {
            for (const char* part : {" ForwardEpilogue", " HeadsEpilogue", "BernoulliEpilogue",
                                     " BackwardEpilogue", "HeadsBackward", "WeightEpilogue"}) {
                if (kernel.find(part) != std::string::npos) result[part] += count;
            }
        }
        return result;
    };
    // Of the hidden layers the decoder's forward, both layers' gradients.
    EXPECT_EQ(early_in_two_steps(true, true, 1), (Counts{{" ForwardEpilogue", 2},
                                                         {" HeadsEpilogue", 2},
                                                         {"BernoulliEpilogue", 2},
                                                         {" BackwardEpilogue", 4},
                                                         {"HeadsBackward", 2}}));
    EXPECT_EQ(early_in_two_steps(true, true, 2), (Counts{{" ForwardEpilogue", 4},
                                                         {" HeadsEpilogue", 4},
                                                         {"BernoulliEpilogue", 4},
                                                         {" BackwardEpilogue", 8},
                                                         {"HeadsBackward", 4}}));
    EXPECT_EQ(early_in_two_steps(true, false, 1), (Counts{{" HeadsEpilogue", 2},
                                                          {"BernoulliEpilogue", 2},
                                                          {" BackwardEpilogue", 2},
                                                          {"HeadsBackward", 2}}));
    // The heads are the first product here.
    EXPECT_EQ(early_in_two_steps(false, true, 1), (Counts{{" ForwardEpilogue", 2},
                                                          {"BernoulliEpilogue", 2},
                                                          {" BackwardEpilogue", 2},
                                                          {"HeadsBackward", 2}}));
    EXPECT_EQ(early_in_two_steps(false, false, 1),
              (Counts{{"BernoulliEpilogue", 2}, {"HeadsBackward", 2}}));
}

// Whichever call fails, at whichever of its places, the caller gets an exception, and nothing is
// left behind.
TEST_F(BackendConduct, AFailedCallIsAnExceptionAndLeaksNothing) {
    const std::map<std::string, int> faults = {
        {"cudaSetDevice", cudaErrorInvalidDevice},
        {"cudaGetDeviceProperties", cudaErrorUnknown},
        {"cudaDeviceGetAttribute", cudaErrorUnknown},
        {"cudaMemGetInfo", cudaErrorUnknown},
        {"cudaMalloc", cudaErrorMemoryAllocation},
        {"cudaHostAlloc", cudaErrorMemoryAllocation},
        {"cudaStreamCreateWithFlags", cudaErrorUnknown},
        {"cudaEventCreateWithFlags", cudaErrorUnknown},
        {"cudaEventRecord", cudaErrorUnknown},
        {"cudaEventSynchronize", cudaErrorUnknown},
        {"cudaStreamWaitEvent", cudaErrorUnknown},
        {"cudaFuncGetAttributes", cudaErrorUnknown},
        {"cudaStreamBeginCapture", cudaErrorUnknown},
        {"cudaStreamEndCapture", cudaErrorStreamCaptureInvalidated},
        {"cudaGraphGetNodes", cudaErrorUnknown},
        {"cudaGraphInstantiate", cudaErrorMemoryAllocation},
        {"cudaGraphUpload", cudaErrorMemoryAllocation},
        {"cudaGraphLaunch", cudaErrorUnknown},
        {"cudaMemcpyAsync", cudaErrorInvalidValue},
        {"cudaMemsetAsync", cudaErrorInvalidValue},
        {"cudaStreamSynchronize", cudaErrorLaunchFailure},
        {"cudaLaunchKernelExC", cudaErrorLaunchFailure},
        {"cudaGetDevice", cudaErrorUnknown},
        {"cublasLtCreate", CUBLAS_STATUS_ALLOC_FAILED},
        {"cublasLtMatmulDescInit_internal", CUBLAS_STATUS_INVALID_VALUE},
        {"cublasLtMatmulDescSetAttribute", CUBLAS_STATUS_INVALID_VALUE},
        {"cublasLtMatrixLayoutInit_internal", CUBLAS_STATUS_INVALID_VALUE},
        {"cublasLtMatmulPreferenceInit_internal", CUBLAS_STATUS_INVALID_VALUE},
        {"cublasLtMatmulPreferenceSetAttribute", CUBLAS_STATUS_INVALID_VALUE},
        {"cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_INTERNAL_ERROR},
        {"cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED},
        {"execution", cudaErrorIllegalAddress},
    };
    expect_failures_are_told(DataPlacement::automatic, faults, {});
    const auto made = [this] {  // which is the same wherever data are
        emulation::reset();
        const gpu::CudaBackend backend(config, layout);
        return emulation::calls();
    }();
    expect_failures_are_told(DataPlacement::streamed, faults, made);
}

void BackendConduct::expect_failures_are_told(DataPlacement placement,
                                              const std::map<std::string, int>& faults,
                                              Calls spared) const {
    // Destructors call these, which have nobody to tell.
    const std::set<std::string> releases = {
        "cudaDeviceSynchronize", "cudaFree",        "cudaFreeHost",     "cudaStreamDestroy",
        "cudaEventDestroy",      "cublasLtDestroy", "cudaGraphDestroy", "cudaGraphExecDestroy"};
    // What says that an algorithm has no such number.
    const std::set<std::string> answers = {"cublasLtMatmulAlgoConfigGetAttribute"};
    const emulation::Live before = emulation::live();
    emulation::reset();
    use_everything(placement);
    const std::map<std::string, std::uint64_t> calls = emulation::calls();
    for (const auto& [call, status] : faults) EXPECT_EQ(calls.count(call), 1U) << call;
    for (const auto& [call, count] : calls) {
        if (releases.contains(call) || answers.contains(call)) continue;
        ASSERT_EQ(faults.count(call), 1U) << "with what does " << call << " fail?";
        for (std::uint64_t n = spared[call] + 1; n <= count; ++n) {
            SCOPED_TRACE(call + ", call " + std::to_string(n) + " of " + std::to_string(count));
            emulation::reset();
            emulation::fail_call(call, n, faults.at(call));
            try {
                use_everything(placement);
                ADD_FAILURE() << "its failure is ignored";
            } catch (const std::exception& error) {
                EXPECT_GT(std::string(error.what()).size(), 10U);
            }
            EXPECT_TRUE(emulation::live() == before) << "something is left behind";
        }
    }
    emulation::reset();
    use_everything(placement);
}

TEST_F(BackendConduct, AnOldDeviceHasNoTf32) {
    emulation::set_compute_capability(7, 5);
    Config old = config;
    old.train.precision = Precision::automatic;
    EXPECT_EQ(gpu::CudaBackend(old, layout).precision(), Precision::fp32);
    for (const Precision precision : {Precision::tf32, Precision::bf16}) {
        old.train.precision = precision;
        try {
            gpu::CudaBackend backend(old, layout);
            ADD_FAILURE() << "a device of 7.5 was taken";
        } catch (const InputError& error) {
            const std::string message = error.what();
            EXPECT_NE(message.find("train.precision"), std::string::npos) << message;
            EXPECT_NE(message.find("fp32"), std::string::npos) << message;
        }
    }
}

TEST_F(BackendConduct, ADeviceThatCannotRunThisBuildIsNotUsable) {
    CudaStatus usable;
    vae_cuda_status(usable);
    EXPECT_EQ(usable.reason, "");
    ASSERT_EQ(usable.devices.size(), 1U);

    emulation::fail_call("cudaFuncGetAttributes", 1, cudaErrorNoKernelImageForDevice);
    CudaStatus status;
    vae_cuda_status(status);
    EXPECT_EQ(status.devices.size(), 1U);
    EXPECT_NE(status.reason.find("cannot run this build"), std::string::npos) << status.reason;
    EXPECT_NE(status.reason.find("9.0"), std::string::npos) << status.reason;
}

TEST_F(BackendConduct, ADeviceThatFailsIsNotToldToBuildForAnother) {
    emulation::fail_call("cudaFuncGetAttributes", 1, cudaErrorMemoryAllocation);
    CudaStatus status;
    vae_cuda_status(status);
    EXPECT_NE(status.reason.find("out of memory"), std::string::npos) << status.reason;
    EXPECT_EQ(status.reason.find("build"), std::string::npos) << status.reason;
}

TEST_F(BackendConduct, NoDriverAndNoDeviceAreToldApart) {
    CudaStatus status;
    emulation::fail_call("cudaGetDeviceCount", 1, cudaErrorNoDevice);
    vae_cuda_status(status);
    EXPECT_TRUE(status.devices.empty());
    EXPECT_EQ(status.reason, "there is no CUDA device");
    EXPECT_FALSE(status.driver.empty());
}

}  // namespace
}  // namespace vae
