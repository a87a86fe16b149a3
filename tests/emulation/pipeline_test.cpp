// Copies into shared memory that take place beside the thread that began them.
#include <gmock/gmock.h>

#include <cuda_pipeline.h>
#include <cuda_pipeline_primitives.h>

#include <cmath>
#include <numeric>

#include "emulation_fixture.h"
#include "kernels/shared_memory.cuh"

namespace emulation {
namespace {

using testing::Each;
using testing::ElementsAre;
using vae::kernels::dynamic_shared;

constexpr unsigned kThreads = 64;
constexpr unsigned kTiles = 5;

// What a kernel may leave out of what it needs.
enum class Forgets { nothing, commit, wait, barrier_before_copy };

// Sums tiles of one float a thread; of each tile a thread reads its neighbor's. The next is copied
// while one is summed.
template <Forgets kForgets>
__global__ void sum_kernel(const float* tiles, float* sums) {
    float* const buffers = dynamic_shared<float>();
    const unsigned neighbor = (threadIdx.x + 1) % kThreads;
    const auto begin_copy = [&](unsigned tile) {
        if (tile < kTiles) {
            __pipeline_memcpy_async(&buffers[tile % 2 * kThreads + threadIdx.x],
                                    &tiles[tile * kThreads + threadIdx.x], sizeof(float));
        }
        if constexpr (kForgets != Forgets::commit) __pipeline_commit();
    };
    float sum = 0;
    begin_copy(0);
    for (unsigned tile = 0; tile < kTiles; ++tile) {
        begin_copy(tile + 1);
        if constexpr (kForgets != Forgets::wait) __pipeline_wait_prior(1);
        __syncthreads();
        sum += buffers[tile % 2 * kThreads + neighbor];
        // The copy after the next goes where others may still read.
        if constexpr (kForgets != Forgets::barrier_before_copy) __syncthreads();
    }
    sums[threadIdx.x] = sum;
}

class Pipeline : public EmulationTest {
  protected:
    template <Forgets kForgets>
    bool is_right(Order order) {
        std::vector<float> tiles(kTiles * kThreads);
        std::iota(tiles.begin(), tiles.end(), 0.0f);
        std::vector<float> expected(kThreads, 0.0f);
        for (unsigned i = 0; i < kThreads; ++i) {
            for (unsigned tile = 0; tile < kTiles; ++tile) {
                expected[i] += tiles[tile * kThreads + (i + 1) % kThreads];
            }
        }
        const Buffer<float> device_tiles(tiles);
        const Buffer<float> sums(kThreads);
        set_order(order, 3);
        launch(sum_kernel<kForgets>, 1, kThreads, 2 * kThreads * sizeof(float), device_tiles.data(),
               sums.data());
        EXPECT_EQ(synchronize(), cudaSuccess);
        return sums.download() == expected;
    }
};

TEST_F(Pipeline, CopiesWhileItSums) {
    for (const Order order : kOrders) EXPECT_TRUE(is_right<Forgets::nothing>(order));
}

TEST_F(Pipeline, LateCopiesShowAMissingWait) {
    EXPECT_FALSE(is_right<Forgets::wait>(Order::ascending));
    EXPECT_TRUE(is_right<Forgets::wait>(Order::descending)) << "nothing shows here";
    EXPECT_FALSE(is_right<Forgets::wait>(Order::random));
    EXPECT_FALSE(is_right<Forgets::commit>(Order::ascending)) << "a wait is for groups";
    EXPECT_FALSE(is_right<Forgets::commit>(Order::random));
}

TEST_F(Pipeline, CopiesAtOnceShowABufferThatOthersStillRead) {
    EXPECT_TRUE(is_right<Forgets::barrier_before_copy>(Order::ascending)) << "nothing shows here";
    EXPECT_FALSE(is_right<Forgets::barrier_before_copy>(Order::descending));
    EXPECT_FALSE(is_right<Forgets::barrier_before_copy>(Order::random));
}

// One thread begins three groups; what has come after waiting for all but the last `prior`.
__global__ void groups_kernel(const int* from, std::size_t prior, int* out) {
    int* const to = dynamic_shared<int>();
    for (int i = 0; i < 3; ++i) {
        __pipeline_memcpy_async(&to[i], &from[i], sizeof(int));
        __pipeline_commit();
    }
    __pipeline_wait_prior(prior);
    for (int i = 0; i < 3; ++i) out[i] = to[i];
}

TEST_F(Pipeline, WaitsForAllButTheLastGroups) {
    const Buffer<int> from(std::vector{1, 2, 3});
    const Buffer<int> out(3);
    const auto arrived = [&](std::size_t prior) {
        launch(groups_kernel, 1, 1, 12, from.data(), prior, out.data());
        EXPECT_EQ(synchronize(), cudaSuccess);
        return out.download();
    };
    set_order(Order::ascending);
    EXPECT_THAT(arrived(0), ElementsAre(1, 2, 3));
    EXPECT_THAT(arrived(1), ElementsAre(1, 2, -1));
    EXPECT_THAT(arrived(2), ElementsAre(1, -1, -1));
    EXPECT_THAT(arrived(3), Each(-1));
    EXPECT_THAT(arrived(100), Each(-1));
    set_order(Order::descending);
    EXPECT_THAT(arrived(3), ElementsAre(1, 2, 3)) << "at once";
}

template <class T>
__global__ void zeros_kernel(const T* from, std::size_t zeros, T* out) {
    T* const to = dynamic_shared<T>();
    __pipeline_memcpy_async(to, from, sizeof(T), zeros);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    *out = *to;
}

TEST_F(Pipeline, CopiesEachSizeAndFillsWithZeros) {
    const Buffer<int> four(std::vector{-1});
    const Buffer<int2> eight(std::vector{make_int2(1, 2)});
    const Buffer<int4> sixteen(std::vector{make_int4(1, 2, 3, 4)});
    const Buffer<int> out(std::vector{0});
    const Buffer<int2> two(1);
    const Buffer<int4> quad(1);
    for (const Order order : kOrders) {
        set_order(order, 1);
        launch(zeros_kernel<int>, 1, 1, 4, four.data(), 3, out.data());
        launch(zeros_kernel<int2>, 1, 1, 8, eight.data(), 4, two.data());
        launch(zeros_kernel<int4>, 1, 1, 16, sixteen.data(), 0, quad.data());
        ASSERT_EQ(synchronize(), cudaSuccess);
        EXPECT_EQ(out.download()[0], 0xff);
        EXPECT_EQ(two.download()[0].x, 1);
        EXPECT_EQ(two.download()[0].y, 0);
        EXPECT_EQ(quad.download()[0].w, 4);
        launch(zeros_kernel<int4>, 1, 1, 16, nullptr, 16, quad.data());
        ASSERT_EQ(synchronize(), cudaSuccess) << "nothing is read where all is zeros";
        EXPECT_EQ(quad.download()[0].x, 0);
    }
}

// The first block leaves a copy behind, for which a thread of the second cannot wait.
__global__ void left_copy_kernel(const int* from, int* out) {
    int* const to = dynamic_shared<int>();
    if (blockIdx.x == 0) {
        __pipeline_memcpy_async(to, from, sizeof(int));
        __pipeline_commit();
    } else {
        __pipeline_wait_prior(0);
        *out = *to;
    }
}

TEST_F(Pipeline, ForgetsWhatAThreadDidNotWaitFor) {
    const Buffer<int> from(std::vector{7});
    const Buffer<int> out(1);
    set_order(Order::ascending);
    launch(left_copy_kernel, 2, 1, 4, from.data(), out.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(out.download(), Each(-1));
}

__global__ void bad_copy_kernel(const char* from, int to, int size, int zeros) {
    __pipeline_memcpy_async(dynamic_shared<char>() + to, from, static_cast<std::size_t>(size),
                            static_cast<std::size_t>(zeros));
}
__global__ void copy_out_kernel(char* out) {
    __pipeline_memcpy_async(out, dynamic_shared<char>(), 4);
}
__global__ void copy_within_kernel() {
    __pipeline_memcpy_async(dynamic_shared<char>(), dynamic_shared<char>() + 16, 16);
}

TEST_F(Pipeline, BadCopiesEndTheKernel) {
    const auto expect = [&](const std::string& reason, auto kernel, auto... arguments) {
        expect_end("called __pipeline_memcpy_async at", "pipeline_test.cpp", kernel, arguments...);
        expect_end(reason, "pipeline_test.cpp", kernel, arguments...);
    };
    const Buffer<char> from(std::vector<char>(64, 'x'));
    expect("with a size that is none of 4, 8 and 16", bad_copy_kernel, from.data(), 0, 12, 0);
    expect("with more zeros than the size", bad_copy_kernel, from.data(), 0, 4, 5);
    expect("with a destination that is no multiple", bad_copy_kernel, from.data(), 8, 16, 0);
    expect("with a source that is no multiple", bad_copy_kernel, from.data() + 4, 0, 8, 0);
    expect("outside the block's shared memory", bad_copy_kernel, from.data(), 4096, 4, 0);
    expect("outside the block's shared memory", copy_out_kernel, from.data());
    expect("with a source in shared memory", copy_within_kernel);
}

}  // namespace
}  // namespace emulation
