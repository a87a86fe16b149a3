// Memory, streams, events, errors and injected faults.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "emulation_fixture.h"

namespace emulation {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Pair;

class EmulatedRuntime : public EmulationTest {};

__global__ void add_kernel(int* value, int amount) {
    *value += amount;
}
__global__ void times_kernel(int* value, int factor) {
    *value *= factor;
}

TEST_F(EmulatedRuntime, DescribesOneDevice) {
    int count = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(count, 1);
    cudaDeviceProp properties;
    EXPECT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
    EXPECT_STREQ(properties.name, "Emulated CUDA device (CPU)");
    EXPECT_EQ(properties.major * 10 + properties.minor, 90);
    EXPECT_EQ(cudaGetDeviceProperties(&properties, 1), cudaErrorInvalidDevice);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "asking clears it";
    int warp = 0;
    EXPECT_EQ(cudaDeviceGetAttribute(&warp, cudaDevAttrWarpSize, 0), cudaSuccess);
    EXPECT_EQ(warp, 32);
    EXPECT_STREQ(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
    EXPECT_STREQ(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

TEST_F(EmulatedRuntime, FreshMemoryIsPoison) {
    const Buffer<float> memory(5);
    for (const float value : memory.download()) EXPECT_TRUE(std::isnan(value));
}

TEST_F(EmulatedRuntime, CountsMemory) {
    std::size_t before = 0;
    std::size_t total = 0;
    ASSERT_EQ(cudaMemGetInfo(&before, &total), cudaSuccess);
    {
        const Buffer<char> memory(1000);
        std::size_t now = 0;
        ASSERT_EQ(cudaMemGetInfo(&now, &total), cudaSuccess);
        EXPECT_EQ(before - now, 1000u);
        EXPECT_EQ(live_allocations(), 1u);
        EXPECT_EQ(live().device_bytes, 1000u);
    }
    EXPECT_EQ(live_allocations(), 0u);
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, total + 1), cudaErrorMemoryAllocation);
    EXPECT_EQ(memory, nullptr);
    EXPECT_EQ(cudaMalloc(&memory, 0), cudaSuccess);
    EXPECT_EQ(memory, nullptr);
}

TEST_F(EmulatedRuntime, FreesOnlyWhatWasAllocated) {
    int local = 0;
    EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
    EXPECT_EQ(cudaFree(&local), cudaErrorInvalidValue);
    int* pinned = nullptr;
    ASSERT_EQ(cudaMallocHost(&pinned, sizeof(int)), cudaSuccess);
    EXPECT_EQ(live().pinned_allocations, 1u);
    EXPECT_EQ(cudaFree(pinned), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(EmulatedRuntime, ChecksCopies) {
    const Buffer<int> device(4);
    std::vector<int> host(4, 1);
    const std::size_t size = device.bytes();
    EXPECT_EQ(cudaMemcpy(device.data(), host.data(), size, cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(device.data(), host.data(), size, cudaMemcpyDefault), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(device.data(), host.data(), size, cudaMemcpyDeviceToDevice),
              cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(device.data(), host.data(), size, cudaMemcpyDeviceToHost),
              cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(host.data(), device.data(), size + 1, cudaMemcpyDeviceToHost),
              cudaErrorInvalidValue);
    EXPECT_TRUE(last_message_has("the source leaves its allocation")) << last_message();
    EXPECT_EQ(
        cudaMemcpyAsync(device.data() + 1, host.data(), size, cudaMemcpyHostToDevice, stream()),
        cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(device.data(), host.data(), 0, cudaMemcpyDeviceToHost), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(device.data(), 0, size + 1, stream()), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemsetAsync(host.data(), 0, size, stream()), cudaErrorInvalidValue);
}

TEST_F(EmulatedRuntime, CopiesAndFillsRectangles) {
    const Buffer<char> device(std::vector<char>(6, 'x'));
    ASSERT_EQ(cudaMemset2DAsync(device.data(), 3, 'o', 2, 2, stream()), cudaSuccess);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(device.download(), ElementsAre('o', 'o', 'x', 'o', 'o', 'x'));
    const char host[] = {'a', 'b', 'c', 'd'};
    ASSERT_EQ(cudaMemcpy2D(device.data() + 1, 3, host, 2, 2, 2, cudaMemcpyHostToDevice),
              cudaSuccess);
    EXPECT_THAT(device.download(), ElementsAre('o', 'a', 'b', 'o', 'c', 'd'));
    EXPECT_EQ(cudaMemcpy2D(device.data(), 1, host, 2, 2, 2, cudaMemcpyHostToDevice),
              cudaErrorInvalidPitchValue);
}

TEST_F(EmulatedRuntime, CopiesWithinTheDeviceNeedAStream) {
    const Buffer<int> from(std::vector{7});
    const Buffer<int> to(1);
    EXPECT_EQ(cudaMemcpy(to.data(), from.data(), to.bytes(), cudaMemcpyDeviceToDevice),
              cudaErrorNotSupported);
    ASSERT_EQ(
        cudaMemcpyAsync(to.data(), from.data(), to.bytes(), cudaMemcpyDeviceToDevice, stream()),
        cudaSuccess);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(to.download(), ElementsAre(7));
}

TEST_F(EmulatedRuntime, AKernelIsGivenOnlyPointersThatTheDeviceSees) {
    const Buffer<int> value(std::vector{1});
    int local = 1;
    launch(add_kernel, 1, 1, 0, &local, 5);
    EXPECT_EQ(synchronize(), cudaErrorIllegalAddress);
    EXPECT_EQ(local, 1);
    EXPECT_TRUE(last_message_has("add_kernel: parameter 1")) << last_message();
}

TEST_F(EmulatedRuntime, NothingRunsUntilSomebodySynchronizes) {
    const Buffer<int> value(std::vector{1});
    launch(add_kernel, 1, 1, 0, value.data(), 5);
    EXPECT_EQ(pending_operations(), 1u);
    EXPECT_THAT(value.download(), ElementsAre(1)) << "a copy without a stream does not wait for it";
    EXPECT_EQ(cudaStreamQuery(stream()), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamQuery(stream()), cudaSuccess) << "asking moves it on";
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(6));
}

TEST_F(EmulatedRuntime, PinnedMemoryIsReadLateAndPageableEarly) {
    const Buffer<int> device(2);
    int* pinned = nullptr;
    ASSERT_EQ(cudaMallocHost(&pinned, sizeof(int)), cudaSuccess);
    int pageable = 1;
    *pinned = 1;
    ASSERT_EQ(
        cudaMemcpyAsync(device.data(), &pageable, sizeof(int), cudaMemcpyHostToDevice, stream()),
        cudaSuccess);
    ASSERT_EQ(
        cudaMemcpyAsync(device.data() + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, stream()),
        cudaSuccess);
    pageable = *pinned = 2;
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(device.download(), ElementsAre(1, 2));

    *pinned = 0;
    ASSERT_EQ(
        cudaMemcpyAsync(pinned, device.data() + 1, sizeof(int), cudaMemcpyDeviceToHost, stream()),
        cudaSuccess);
    EXPECT_EQ(*pinned, 0);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_EQ(*pinned, 2);
    ASSERT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(EmulatedRuntime, RefusesTheDefaultStream) {
    const Buffer<int> value(std::vector{1});
    EXPECT_THROW(vae::kernels::launch("test", add_kernel, {1, 1}, nullptr, value.data(), 1),
                 vae::kernels::CudaError);
    EXPECT_TRUE(last_message_has("default stream")) << last_message();
    EXPECT_EQ(cudaMemsetAsync(value.data(), 0, 4, nullptr), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaStreamSynchronize(cudaStreamPerThread), cudaErrorInvalidResourceHandle);
}

TEST_F(EmulatedRuntime, RefusesLaunchesThatNoDeviceRuns) {
    const Buffer<int> value(std::vector{1});
    const auto status_of = [&](dim3 grid, dim3 block, std::size_t shared) {
        try {
            launch(add_kernel, grid, block, shared, value.data(), 1);
        } catch (const vae::kernels::CudaError& error) {
            return error.status();
        }
        return cudaSuccess;
    };
    EXPECT_EQ(status_of(0, 1, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status_of(1, 0, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status_of(1, 1025, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status_of(dim3(1, 65536), 1, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(status_of(1, 1, 48 * 1024 + 1), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFuncSetAttribute(reinterpret_cast<const void*>(&add_kernel),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024),
              cudaSuccess);
    EXPECT_EQ(status_of(1, 1, 64 * 1024), cudaSuccess);
    EXPECT_EQ(synchronize(), cudaSuccess);
}

TEST_F(EmulatedRuntime, EventsOrderStreams) {
    cudaStream_t other = nullptr;
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
    const Buffer<int> value(std::vector{1});
    launch(add_kernel, 1, 1, 0, value.data(), 5);
    ASSERT_EQ(cudaEventRecord(event, stream()), cudaSuccess);
    launch(add_kernel, 1, 1, 0, value.data(), 100);
    ASSERT_EQ(cudaStreamWaitEvent(other, event, 0), cudaSuccess);
    vae::kernels::launch("times", times_kernel, {1, 1}, other, value.data(), 7);
    ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(42)) << "and not what comes after the event";
    EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(142));

    cudaEvent_t end = nullptr;
    ASSERT_EQ(cudaEventCreate(&end), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(end, stream()), cudaSuccess);
    float milliseconds = -1;
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event, end), cudaErrorNotReady);
    ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event, end), cudaSuccess);
    EXPECT_GE(milliseconds, 0);
    EXPECT_EQ(live().events, 2u);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaEventDestroy(end), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

TEST_F(EmulatedRuntime, AMissingWaitShows) {
    cudaStream_t other = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    const Buffer<int> value(std::vector{1});
    launch(add_kernel, 1, 1, 0, value.data(), 5);
    vae::kernels::launch("times", times_kernel, {1, 1}, other, value.data(), 7);
    ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(7));
    EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(12));
}

TEST_F(EmulatedRuntime, CountsCallsAndLaunches) {
    const Buffer<int> value(std::vector{1});
    for (int i = 0; i < 3; ++i) launch(add_kernel, 1, 1, 0, value.data(), 1);
    launch(times_kernel, 1, 1, 0, value.data(), 2);
    EXPECT_TRUE(launches().empty()) << "not before they run";
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(launches(), ElementsAre(Pair("add_kernel", 3u), Pair("times_kernel", 1u)));
    EXPECT_THAT(calls(), Contains(Pair("cudaLaunchKernelExC", 4u)));
}

template <class T, int N>
__global__ void template_kernel(T*) {}

TEST_F(EmulatedRuntime, NamesTemplates) {
    launch(template_kernel<float, 4>, 1, 1, 0, nullptr);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(launches(), ElementsAre(Pair("template_kernel<float, 4>", 1u)));
}

TEST_F(EmulatedRuntime, FailsTheCallThatIsAskedFor) {
    fail_call("cudaMalloc", 2, cudaErrorMemoryAllocation);
    void* first = nullptr;
    void* second = nullptr;
    EXPECT_EQ(cudaMalloc(&first, 8), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&second, 8), cudaErrorMemoryAllocation);
    EXPECT_EQ(second, nullptr);
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaMalloc(&second, 8), cudaSuccess) << "only that one";
    EXPECT_EQ(cudaFree(first), cudaSuccess);
    EXPECT_EQ(cudaFree(second), cudaSuccess);
}

TEST_F(EmulatedRuntime, WorksMeanwhileIfAsked) {
    const Buffer<int> value(std::vector{0});
    const auto give = [&](int operations) {
        for (int i = 0; i < operations; ++i) launch(add_kernel, 1, 1, 0, value.data(), 1);
    };
    give(100);
    EXPECT_EQ(pending_operations(), 100U);
    ASSERT_EQ(synchronize(), cudaSuccess);
    run_meanwhile(7);
    give(100);
    EXPECT_LT(pending_operations(), 100U);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(200));
}

TEST_F(EmulatedRuntime, LeavesOutACallThatIsToSucceed) {
    const Buffer<int> value(std::vector{1});
    const std::vector<int> more = {5};
    fail_call("cudaMemcpyAsync", 1, cudaSuccess);
    const auto copy = [&] {
        return cudaMemcpyAsync(value.data(), more.data(), sizeof(int), cudaMemcpyHostToDevice,
                               stream());
    };
    EXPECT_EQ(copy(), cudaSuccess);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(1));
    fail_call("execution", 1, cudaSuccess);
    EXPECT_EQ(copy(), cudaSuccess);
    EXPECT_EQ(copy(), cudaSuccess);
    EXPECT_EQ(pending_operations(), 2U);
    EXPECT_EQ(cudaStreamQuery(stream()), cudaErrorNotReady);
    EXPECT_THAT(value.download(), ElementsAre(1));
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(5));
}

TEST_F(EmulatedRuntime, FailsAnOperationWhenItRuns) {
    const Buffer<int> value(std::vector{1});
    fail_call("execution", 2, cudaErrorIllegalAddress);
    launch(add_kernel, 1, 1, 0, value.data(), 1);
    launch(add_kernel, 1, 1, 0, value.data(), 1);
    launch(add_kernel, 1, 1, 0, value.data(), 1);
    EXPECT_EQ(synchronize(), cudaErrorIllegalAddress);
    EXPECT_EQ(pending_operations(), 0u);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress) << "for good";
    reset();
    EXPECT_THAT(value.download(), ElementsAre(2));
}

TEST_F(EmulatedRuntime, TheEnvironmentInjectsFaults) {
    ASSERT_EQ(setenv("VAE_EMULATION_FAIL", "cudaFree:1:1,cudaMalloc:2:2", 1), 0);
    reset();
    ASSERT_EQ(unsetenv("VAE_EMULATION_FAIL"), 0);
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, 8), cudaSuccess);
    EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&memory, 8), cudaErrorMemoryAllocation);
}

TEST_F(EmulatedRuntime, MemoryIsAsLargeAsTheEnvironmentSays) {
    ASSERT_EQ(setenv("VAE_EMULATION_MEMORY", "100000", 1), 0);
    reset();
    ASSERT_EQ(unsetenv("VAE_EMULATION_MEMORY"), 0);
    const std::size_t used = live().device_bytes;
    std::size_t free = 0;
    std::size_t total = 0;
    ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    EXPECT_EQ(total, 100000U);
    EXPECT_EQ(free, 100000U - used);
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, free + 1), cudaErrorMemoryAllocation);
    ASSERT_EQ(cudaMalloc(&memory, free), cudaSuccess);
    void* pinned = nullptr;
    EXPECT_EQ(cudaHostAlloc(&pinned, 8, cudaHostAllocDefault), cudaSuccess) << "is the host's";
    EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST(EmulationEnvironmentDeathTest, RefusesWhatItDoesNotUnderstand) {
    const auto reset_with = [](const char* variable, const char* value) {
        setenv(variable, value, 1);
        reset();
    };
    EXPECT_EXIT(reset_with("VAE_EMULATION_ORDER", "sideways"), testing::ExitedWithCode(2),
                "VAE_EMULATION_ORDER=sideways: expected ascending");
    EXPECT_EXIT(reset_with("VAE_EMULATION_FAIL", "cudaMalloc:x:2"), testing::ExitedWithCode(2),
                "expected CALL:N:STATUS");
    EXPECT_EXIT(reset_with("VAE_EMULATION_MEMORY", "1 GB"), testing::ExitedWithCode(2),
                "expected bytes");
    EXPECT_EXIT(reset_with("VAE_EMULATION_ROUNDING", "random"), testing::ExitedWithCode(2),
                "VAE_EMULATION_ROUNDING=random: expected host, random:SEED");
    EXPECT_EXIT(reset_with("VAE_EMULATION_RELU", "0"), testing::ExitedWithCode(2),
                "expected number or nan");
    EXPECT_EXIT(reset_with("VAE_EMULATION_TF32", "floor"), testing::ExitedWithCode(2),
                "VAE_EMULATION_TF32=floor: expected round or cut");
}

TEST_F(EmulatedRuntime, AsyncAllocationFollowsTheStream) {
    int* memory = nullptr;
    ASSERT_EQ(cudaMallocAsync(&memory, sizeof(int), stream()), cudaSuccess);
    ASSERT_EQ(cudaMemsetAsync(memory, 0, sizeof(int), stream()), cudaSuccess);
    launch(add_kernel, 1, 1, 0, memory, 1);
    ASSERT_EQ(cudaFreeAsync(memory, stream()), cudaSuccess);
    EXPECT_EQ(live_allocations(), 1u);
    EXPECT_EQ(synchronize(), cudaSuccess);
    EXPECT_EQ(live_allocations(), 0u);
}

#if defined(__SANITIZE_ADDRESS__)
__global__ void overrun_kernel(int* values) {
    values[threadIdx.x] = 1;
}
__global__ void shared_overrun_kernel(int*) {
    static_cast<int*>(dynamic_shared_memory())[threadIdx.x] = 1;
    __syncthreads();
}

TEST(EmulationDeathTest, AddressSanitizerNamesTheLineOfTheKernel) {
    const auto run = [](void (*kernel)(int*), unsigned shared) {
        cudaStream_t stream = nullptr;
        vae::kernels::cuda_check(cudaStreamCreate(&stream), "stream");
        const Buffer<int> memory(31);
        vae::kernels::launch("overrun", kernel, {1, 32, shared}, stream, memory.data());
        cudaStreamSynchronize(stream);
    };
    EXPECT_DEATH(run(overrun_kernel, 0), "heap-buffer-overflow(.|\n)*overrun_kernel");
    EXPECT_DEATH(run(shared_overrun_kernel, 124), "heap-buffer-overflow(.|\n)*shared_overrun");
}
#endif

}  // namespace
}  // namespace emulation
