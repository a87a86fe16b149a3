// Threads, barriers, shared memory, turns and what goes wrong with them.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "emulation_fixture.h"
#include "kernels/shared_memory.cuh"

namespace emulation {
namespace {

using testing::Each;
using testing::ElementsAre;
using vae::kernels::dynamic_shared;

class Engine : public EmulationTest {};

constexpr int kThreads = 128;

// Where each thread stands, in a grid and block of three dimensions.
__global__ void positions_kernel(uint3* threads, uint3* blocks, unsigned* counts) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
    threads[i] = threadIdx;
    blocks[i] = blockIdx;
    atomicAdd(&counts[i], 1u);
}

TEST_F(Engine, RunsEachThreadOfEachBlockOnce) {
    const dim3 grid(3, 2, 2);
    const dim3 block(5, 3, 2);
    constexpr std::size_t kAll = 12 * 30;
    for (const Order order : {Order::ascending, Order::descending, Order::random}) {
        set_order(order, 3);
        const Buffer<uint3> threads(kAll);
        const Buffer<uint3> blocks(kAll);
        const Buffer<unsigned> counts(std::vector<unsigned>(kAll, 0));
        launch(positions_kernel, grid, block, 0, threads.data(), blocks.data(), counts.data());
        ASSERT_EQ(synchronize(), cudaSuccess);
        EXPECT_THAT(counts.download(), Each(1u));
        const uint3 thread = threads.download()[31 + 30 * 7];  // thread 1 of block 8
        EXPECT_THAT((std::vector{thread.x, thread.y, thread.z}), ElementsAre(1u, 0u, 0u));
        const uint3 position = blocks.download()[31 + 30 * 7];
        EXPECT_THAT((std::vector{position.x, position.y, position.z}), ElementsAre(2u, 0u, 1u));
    }
}

// Sums a block in a tree. Without the barrier in the loop it is the classic race.
template <bool kWithBarrier>
__global__ void tree_sum_kernel(const float* values, float* sum) {
    float* const tile = dynamic_shared<float>();
    tile[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
        if constexpr (kWithBarrier) __syncthreads();
    }
    if (threadIdx.x == 0) *sum = tile[0];
}

std::vector<float> iota(std::size_t size) {
    std::vector<float> values(size);
    std::iota(values.begin(), values.end(), 0.0f);
    return values;
}

TEST_F(Engine, BarriersOrderSharedMemory) {
    const Buffer<float> values(iota(kThreads));
    for (const Order order : {Order::ascending, Order::descending, Order::random}) {
        set_order(order, 5);
        const Buffer<float> sum(1);
        launch(tree_sum_kernel<true>, 1, kThreads, kThreads * sizeof(float), values.data(),
               sum.data());
        ASSERT_EQ(synchronize(), cudaSuccess);
        EXPECT_THAT(sum.download(), ElementsAre(127.0f * 64.0f));
    }
}

// Each thread reads what its left neighbor wrote, and nobody waits for anybody.
__global__ void neighbor_kernel(const float* values, float* out) {
    float* const tile = dynamic_shared<float>();
    tile[threadIdx.x] = values[threadIdx.x];
    if (threadIdx.x > 0) out[threadIdx.x - 1] = tile[threadIdx.x - 1];
}

// A race may pass in one order; so tests run in all of them.
TEST_F(Engine, SomeOrderShowsAMissingBarrier) {
    const std::vector<float> host = iota(kThreads);
    const Buffer<float> values(host);
    const auto sum_is_right = [&](Order order) {
        set_order(order, 1);
        const Buffer<float> sum(1);
        launch(tree_sum_kernel<false>, 1, kThreads, kThreads * sizeof(float), values.data(),
               sum.data());
        EXPECT_EQ(synchronize(), cudaSuccess);
        return sum.download()[0] == 127.0f * 64.0f;
    };
    EXPECT_FALSE(sum_is_right(Order::ascending));
    EXPECT_FALSE(sum_is_right(Order::descending));
    EXPECT_FALSE(sum_is_right(Order::random));

    const auto neighbors_are_right = [&](Order order) {
        set_order(order, 1);
        const Buffer<float> out(kThreads - 1);
        launch(neighbor_kernel, 1, kThreads, kThreads * sizeof(float), values.data(), out.data());
        EXPECT_EQ(synchronize(), cudaSuccess);
        return out.download() == std::vector<float>(host.begin(), host.end() - 1);
    };
    EXPECT_TRUE(neighbors_are_right(Order::ascending)) << "nothing shows here";
    EXPECT_FALSE(neighbors_are_right(Order::descending));
    EXPECT_FALSE(neighbors_are_right(Order::random));
}

// Reads across lanes of a warp without a __syncwarp between.
__global__ void warp_race_kernel(float* out) {
    float* const tile = dynamic_shared<float>();
    tile[threadIdx.x] = static_cast<float>(threadIdx.x);
    out[threadIdx.x] = tile[threadIdx.x ^ 1u];
}

TEST_F(Engine, SharedMemoryOfEachBlockIsPoison) {
    const Buffer<float> out(64);
    set_order(Order::ascending);
    launch(warp_race_kernel, 2, 32, 32 * sizeof(float), out.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    const std::vector<float> values = out.download();
    // The even lanes read before their neighbor has written, in the second block, too.
    EXPECT_TRUE(std::isnan(values[0]));
    EXPECT_EQ(values[1], 0.0f);
}

__global__ void log_turns_kernel(unsigned* log, unsigned* count) {
    log[atomicAdd(count, 1u)] = blockIdx.x * blockDim.x + threadIdx.x;
}

std::vector<unsigned> turns_of(cudaStream_t stream) {
    const Buffer<unsigned> log(6);
    const Buffer<unsigned> count(std::vector{0u});
    vae::kernels::launch("turns", log_turns_kernel, {2, 3}, stream, log.data(), count.data());
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    return log.download();
}

TEST_F(Engine, TurnsFollowTheOrder) {
    set_order(Order::ascending);
    EXPECT_THAT(turns_of(stream()), ElementsAre(0u, 1u, 2u, 3u, 4u, 5u));
    set_order(Order::descending);
    EXPECT_THAT(turns_of(stream()), ElementsAre(5u, 4u, 3u, 2u, 1u, 0u));
    set_order(Order::random, 11);
    const std::vector<unsigned> random = turns_of(stream());
    EXPECT_NE(turns_of(stream()), random) << "the next launch has another order";
    set_order(Order::random, 11);
    EXPECT_EQ(turns_of(stream()), random) << "the same seed, the same order";
}

__global__ void votes_kernel(int* counts, int* all, int* any) {
    counts[threadIdx.x] = __syncthreads_count(threadIdx.x % 3 == 0);
    all[threadIdx.x] = __syncthreads_and(threadIdx.x < 40);
    any[threadIdx.x] = __syncthreads_or(threadIdx.x == 39);
}

TEST_F(Engine, BarriersCountVotes) {
    const Buffer<int> counts(40);
    const Buffer<int> all(40);
    const Buffer<int> any(40);
    launch(votes_kernel, 1, 40, 0, counts.data(), all.data(), any.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(counts.download(), Each(14));
    EXPECT_THAT(all.download(), Each(1));
    EXPECT_THAT(any.download(), Each(1));
}

__global__ void early_exit_kernel(int* count) {
    if (threadIdx.x >= 10) return;
    const int arrived = __syncthreads_count(1);
    if (threadIdx.x == 0) *count = arrived;
}

TEST_F(Engine, ExitedThreadsAreNotWaitedFor) {
    for (const Order order : {Order::ascending, Order::descending, Order::random}) {
        set_order(order, 2);
        const Buffer<int> count(1);
        launch(early_exit_kernel, 1, 64, 0, count.data());
        ASSERT_EQ(synchronize(), cudaSuccess);
        EXPECT_THAT(count.download(), ElementsAre(10));
    }
}

__global__ void two_barriers_kernel(int* out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = 0;
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

__global__ void barrier_in_warp_divergence_kernel(int* out) {
    if (threadIdx.x == 7) __syncthreads();
    out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

__global__ void exited_lane_kernel(int* out) {
    if (threadIdx.x == 5) return;
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

__global__ void wrong_mask_kernel(int* out) {
    out[threadIdx.x] = __shfl_sync(0xfffffffeu, 1, 1);
}

__global__ void two_operations_kernel(int* out) {
    out[threadIdx.x] = threadIdx.x < 16 ? __shfl_sync(0xffffffffu, 1, 0)
                                        : static_cast<int>(__ballot_sync(0xffffffffu, 1));
}

__global__ void trap_kernel(int* out) {
    __syncthreads();
    if (threadIdx.x == 3) __trap();
    out[threadIdx.x] = 1;
}

class Divergence : public EmulationTest {
  protected:
    // Runs a kernel of one block that must die, and everything after it must say so.
    void expect_death(void (*kernel)(int*), const std::string& name, const std::string& reason) {
        for (const Order order : {Order::ascending, Order::descending, Order::random}) {
            reset();
            set_order(order, 9);
            const Buffer<int> out(32);
            void* memory = nullptr;
            ASSERT_EQ(cudaMalloc(&memory, 1), cudaSuccess);
            launch(kernel, 1, 32, 0, out.data());
            EXPECT_EQ(synchronize(), cudaErrorLaunchFailure);
            EXPECT_TRUE(last_message_has("kernel " + name)) << last_message();
            EXPECT_TRUE(last_message_has(reason)) << last_message();
            EXPECT_TRUE(last_message_has("of block (0, 0, 0)")) << last_message();
            void* none = nullptr;
            EXPECT_EQ(cudaMalloc(&none, 1), cudaErrorLaunchFailure) << "the error stays";
            EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
            EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
            EXPECT_EQ(live_allocations(), 2u);
            EXPECT_EQ(cudaFree(memory), cudaErrorLaunchFailure);
            EXPECT_EQ(live_allocations(), 1u) << "it is freed nevertheless";
            reset();
        }
    }
};

TEST_F(Divergence, TwoBarriersAtOnce) {
    expect_death(two_barriers_kernel, "two_barriers_kernel", "is at the barrier of");
}

TEST_F(Divergence, BarrierThatPartOfAWarpNeverReaches) {
    expect_death(barrier_in_warp_divergence_kernel, "barrier_in_warp_divergence_kernel",
                 "at a block's barrier");
}

TEST_F(Divergence, MaskNamesALaneThatExited) {
    expect_death(exited_lane_kernel, "exited_lane_kernel", "lanes 0x00000020 have exited");
}

TEST_F(Divergence, MaskDoesNotNameTheLaneItself) {
    expect_death(wrong_mask_kernel, "wrong_mask_kernel", "thread (0, 0, 0)");
}

TEST_F(Divergence, DifferentWarpOperationsMeet) {
    expect_death(two_operations_kernel, "two_operations_kernel", "different operations");
}

TEST_F(Divergence, Trap) {
    expect_death(trap_kernel, "trap_kernel", "thread (3, 0, 0)");
}

TEST_F(Engine, GoesOnAfterADeadKernel) {
    const Buffer<int> out(32);
    launch(barrier_in_warp_divergence_kernel, 1, 32, 0, out.data());
    EXPECT_EQ(synchronize(), cudaErrorLaunchFailure);
    reset();
    const Buffer<float> values(iota(kThreads));
    const Buffer<float> sum(1);
    launch(tree_sum_kernel<true>, 1, kThreads, kThreads * sizeof(float), values.data(), sum.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(sum.download(), ElementsAre(127.0f * 64.0f));
}

__global__ void spin_kernel(volatile int* flag) {
    if (threadIdx.x == 31) *flag = 1;
    while (*flag == 0) __nanosleep(100);
}

TEST_F(Engine, SleepLetsOthersGoOn) {
    const Buffer<int> flag(std::vector{0});
    launch(spin_kernel, 1, 32, 0, flag.data());
    EXPECT_EQ(synchronize(), cudaSuccess);
}

__global__ void large_frame_kernel(float* out) {
    float local[4096];
    for (int i = 0; i < 4096; ++i) local[i] = static_cast<float>(i);
    __syncthreads();
    out[threadIdx.x] = local[4095 - threadIdx.x];
}

TEST_F(Engine, StacksHoldLargeFramesOfAFullBlock) {
    const Buffer<float> out(1024);
    launch(large_frame_kernel, 1, 1024, 0, out.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_EQ(out.download()[1023], 4095.0f - 1023.0f);
}

}  // namespace
}  // namespace emulation
