// Warp operations, atomics and arithmetic of the device, against what CUDA's manual says they do.
#include <gmock/gmock.h>

#include <curand_kernel.h>

#include <cmath>
#include <cstdint>

#include "emulation_fixture.h"

namespace emulation {
namespace {

using testing::Each;
using testing::ElementsAre;

constexpr unsigned kAll = 0xffffffffu;
constexpr int kLanes = 32;

class Builtins : public EmulationTest {
  protected:
    // One warp; out[lane] of each lane, in every order.
    template <class T>
    std::vector<T> run(void (*kernel)(T*), int threads = kLanes) {
        const Buffer<T> out(static_cast<std::size_t>(threads));
        launch(kernel, 1, threads, 0, out.data());
        EXPECT_EQ(synchronize(), cudaSuccess);
        std::vector<T> result = out.download();
        for (const Order order : {Order::descending, Order::random}) {
            set_order(order, 17);
            launch(kernel, 1, threads, 0, out.data());
            EXPECT_EQ(synchronize(), cudaSuccess);
            EXPECT_EQ(out.download(), result);
        }
        return result;
    }
};

__global__ void shuffle_kernel(int* out) {
    out[threadIdx.x] = __shfl_sync(kAll, static_cast<int>(threadIdx.x), 9, 8);
}
__global__ void shuffle_up_kernel(int* out) {
    out[threadIdx.x] = __shfl_up_sync(kAll, static_cast<int>(threadIdx.x), 3, 16);
}
__global__ void shuffle_down_kernel(int* out) {
    out[threadIdx.x] = __shfl_down_sync(kAll, static_cast<int>(threadIdx.x), 3, 16);
}
__global__ void shuffle_xor_kernel(int* out) {
    out[threadIdx.x] = __shfl_xor_sync(kAll, static_cast<int>(threadIdx.x), 8, 8);
}

TEST_F(Builtins, ShufflesStayInTheirSegments) {
    const auto shuffled = run(shuffle_kernel);
    const auto up = run(shuffle_up_kernel);
    const auto down = run(shuffle_down_kernel);
    const auto crossed = run(shuffle_xor_kernel);
    for (int lane = 0; lane < kLanes; ++lane) {
        const auto i = static_cast<std::size_t>(lane);
        EXPECT_EQ(shuffled[i], lane / 8 * 8 + 1);
        EXPECT_EQ(up[i], lane % 16 < 3 ? lane : lane - 3);
        EXPECT_EQ(down[i], lane % 16 >= 13 ? lane : lane + 3);
        EXPECT_EQ(crossed[i], (lane & 8) != 0 ? lane - 8 : lane) << "an earlier segment only";
    }
}

__global__ void shuffle_types_kernel(double* out) {
    const auto lane = threadIdx.x;
    const unsigned next = __shfl_down_sync(kAll, lane, 1);
    const float as_float = __shfl_xor_sync(kAll, static_cast<float>(lane), 1);
    const double as_double = __shfl_sync(kAll, static_cast<double>(lane) / 3, 31);
    const long long wide = __shfl_up_sync(kAll, static_cast<long long>(lane) << 40, 1);
    out[lane] = as_double + next + as_float + static_cast<double>(wide >> 40);
}

TEST_F(Builtins, ShufflesTakeEveryType) {
    const auto out = run(shuffle_types_kernel);
    EXPECT_DOUBLE_EQ(out[0], 1 + 1 + 31.0 / 3 + 0);
    EXPECT_DOUBLE_EQ(out[5], 6 + 4 + 31.0 / 3 + 4);
    EXPECT_DOUBLE_EQ(out[31], 31 + 30 + 31.0 / 3 + 30);
}

// Halves of a warp go separate ways, each with a mask of its own.
__global__ void halves_kernel(unsigned* out) {
    const unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    unsigned value = threadIdx.x;
    if (threadIdx.x < 16) {
        for (int i = 0; i < 3; ++i) value += __shfl_xor_sync(mask, value, 1);
    } else {
        value = __ballot_sync(mask, threadIdx.x % 2 == 0);
        __syncwarp(mask);
    }
    out[threadIdx.x] = value;
}

TEST_F(Builtins, MasksSeparateLanes) {
    const auto out = run(halves_kernel);
    EXPECT_EQ(out[0], 4u);
    EXPECT_EQ(out[15], 4u * 29u);
    EXPECT_EQ(out[16], 0x55550000u);
    EXPECT_EQ(out[31], 0x55550000u);
}

__global__ void undefined_source_kernel(float* out) {
    out[threadIdx.x] = threadIdx.x == 0 ? __shfl_sync(1u, 1.0f, 5) : 0.0f;
}

TEST_F(Builtins, ShuffleFromOutsideTheMaskIsPoison) {
    const Buffer<float> out(32);
    launch(undefined_source_kernel, 1, 32, 0, out.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_TRUE(std::isnan(out.download()[0]));
}

// A block of 40 threads: its last warp has 8 lanes, and a full mask names them all.
__global__ void votes_kernel(unsigned* out) {
    const unsigned ballot = __ballot_sync(kAll, threadIdx.x % 2);
    const int any = __any_sync(ballot | kAll, threadIdx.x == 39);
    out[threadIdx.x] = ballot + static_cast<unsigned>(any);
}

TEST_F(Builtins, VotesOfAPartWarp) {
    const auto out = run(votes_kernel, 40);
    EXPECT_EQ(out[0], 0xaaaaaaaau);
    EXPECT_EQ(out[39], 0xaau + 1u);
}

__global__ void all_kernel(int* out) {
    out[threadIdx.x] = 10 * __all_sync(kAll, threadIdx.x < 32) + __all_sync(kAll, threadIdx.x != 3);
}
__global__ void match_kernel(unsigned* out) {
    out[threadIdx.x] = __match_any_sync(kAll, static_cast<int>(threadIdx.x % 16));
}
__global__ void active_kernel(unsigned* out) {
    out[threadIdx.x] = __activemask();
}

TEST_F(Builtins, VotesAndMatches) {
    EXPECT_THAT(run(all_kernel), Each(10));
    EXPECT_EQ(run(match_kernel)[18], (1u << 2) | (1u << 18));
    EXPECT_EQ(run(active_kernel)[18], 1u << 18);
}

__global__ void reduce_kernel(int* out) {
    const int value = static_cast<int>(threadIdx.x) - 10;
    const unsigned bit = 1u << threadIdx.x;
    int result = __reduce_add_sync(kAll, value);                   // 176
    result += 1000 * __reduce_min_sync(kAll, value);               // -10
    result += 100000 * __reduce_max_sync(kAll, value);             // 21
    result += __reduce_min_sync(kAll, threadIdx.x + 5u) == 5u;     // 1
    result += 2 * (__reduce_or_sync(kAll, bit) == kAll);           // 2
    result += 4 * (__reduce_and_sync(kAll, bit) == 0u);            // 4
    result += 8 * (__reduce_xor_sync(kAll, 1u) == 0u);             // 8
    result += 16 * (__reduce_max_sync(kAll, threadIdx.x) == 31u);  // 16
    out[threadIdx.x] = result;
}

TEST_F(Builtins, Reductions) {
    EXPECT_THAT(run(reduce_kernel), Each(176 - 10000 + 2100000 + 31));
}

__global__ void atomics_kernel(unsigned* counters, float* sum, unsigned long long* wide) {
    atomicAdd(&counters[0], 2u);
    atomicInc(&counters[1], 4u);
    atomicDec(&counters[2], 4u);
    atomicMax(&counters[3], threadIdx.x);
    atomicMin(&counters[4], threadIdx.x + 7u);
    atomicOr(&counters[5], 1u << (threadIdx.x % 4));
    atomicXor(&counters[6], 3u);
    atomicSub(&counters[7], 1u);
    atomicAdd(sum, 0.5f);
    atomicAdd(wide, 1ull << 33);
    __threadfence();
}

TEST_F(Builtins, Atomics) {
    const Buffer<unsigned> counters(std::vector<unsigned>{0, 0, 0, 0, 99, 0, 0, 33});
    const Buffer<float> sum(std::vector{0.0f});
    const Buffer<unsigned long long> wide(std::vector{0ull});
    launch(atomics_kernel, 1, 33, 0, counters.data(), sum.data(), wide.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(counters.download(), ElementsAre(66u, 3u, 2u, 32u, 7u, 15u, 3u, 0u));
    EXPECT_THAT(sum.download(), ElementsAre(16.5f));
    EXPECT_THAT(wide.download(), ElementsAre(33ull << 33));
}

__global__ void exchange_kernel(int* out) {
    int value = 5;
    const int old = atomicExch(&value, 7);
    const int missed = atomicCAS(&value, 5, 9);
    const int hit = atomicCAS(&value, 7, 11);
    out[threadIdx.x] = old * 1000000 + missed * 10000 + hit * 100 + value;
}

TEST_F(Builtins, Exchanges) {
    EXPECT_THAT(run(exchange_kernel, 1), Each(5070711));
}

TEST(BuiltinMath, Bits) {
    EXPECT_EQ(__popc(0xf0u), 4);
    EXPECT_EQ(__clz(1), 31);
    EXPECT_EQ(__ffs(8), 4);
    EXPECT_EQ(__brev(1u), 0x80000000u);
    EXPECT_EQ(__umulhi(0x80000000u, 6u), 3u);
    EXPECT_EQ(__funnelshift_l(0x80000000u, 1u, 1u), 3u);
    EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
    EXPECT_EQ(__float2int_rn(2.5f), 2);
    EXPECT_EQ(min(3u, 2u), 2u);
    EXPECT_EQ(max(1.0f, std::nanf("")), 1.0f) << "as fmaxf, not as a comparison";
}

TEST(BuiltinMath, OtherFastFunctionsAreTheExactOnes) {
    EXPECT_EQ(__expf(1.5f), std::exp(1.5f));
    EXPECT_EQ(__logf(1.5f), std::log(1.5f));
    EXPECT_EQ(rsqrtf(4.0f), 0.5f);
    EXPECT_EQ(__fmaf_rn(2.0f, 3.0f, 1.0f), 7.0f);
    EXPECT_EQ(__saturatef(2.0f), 1.0f);
}

// Philox4x32-10 of counter 0 and key 0, from the known answers of Random123.
__global__ void philox_kernel(unsigned* out) {
    curandStatePhilox4_32_10_t state;
    curand_init(0, 0, 0, &state);
    const uint4 words = curand4(&state);
    const unsigned each[4] = {words.x, words.y, words.z, words.w};
    out[threadIdx.x] = each[threadIdx.x];
}

TEST_F(Builtins, CurandWorksInAKernel) {
    EXPECT_THAT(run(philox_kernel, 4),
                ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
}

}  // namespace
}  // namespace emulation
