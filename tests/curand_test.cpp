// Our noise against cuRAND itself: its device functions, compiled for the host, and its host
// generator. Neither needs a GPU.
#include <curand.h>
#include <gtest/gtest.h>

#define QUALIFIERS static inline __host__ __device__
#include <curand_kernel.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/noise.h"

namespace vae {
namespace {

constexpr std::uint32_t kBlocks = 50;

std::vector<NoiseAddress> addresses() {
    return {{0, Purpose::initialization, 0, 0, 0},
            {1, Purpose::epsilon, 7, 59999, 0},
            {0xFEDCBA9876543210, Purpose::dynamic_binarization, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFF},
            {42, static_cast<Purpose>(63), 123456, 31, 5000}};
}

// As host/noise.h says that cuRAND is to be started.
curandStatePhilox4_32_10_t curand_at(const NoiseAddress& address, std::uint32_t block) {
    curandStatePhilox4_32_10_t state;
    const std::uint64_t high = address.sample | static_cast<std::uint64_t>(address.purpose) << 24;
    curand_init(address.seed, address.example | static_cast<std::uint64_t>(address.step) << 32,
                4 * (block | high << 32), &state);
    return state;
}

TEST(Curand, WordsAreTheSame) {
    for (const NoiseAddress& address : addresses()) {
        for (std::uint32_t block = 0; block < kBlocks; ++block) {
            auto state = curand_at(address, block);
            const uint4 words = curand4(&state);
            EXPECT_EQ(noise_block(address, block),
                      (PhiloxBlock{words.x, words.y, words.z, words.w}));
        }
    }
}

TEST(Curand, UniformsAreTheSame) {
    for (const NoiseAddress& address : addresses()) {
        std::vector<float> ours(4 * kBlocks);
        fill_uniform(address, ours);
        for (std::uint32_t block = 0; block < kBlocks; ++block) {
            auto state = curand_at(address, block);
            const float4 theirs = curand_uniform4(&state);
            const float* four = ours.data() + std::size_t{4} * block;
            EXPECT_EQ(four[0], theirs.x);
            EXPECT_EQ(four[1], theirs.y);
            EXPECT_EQ(four[2], theirs.z);
            EXPECT_EQ(four[3], theirs.w);
        }
    }
}

TEST(Curand, NormalsAreTheSame) {
    for (const NoiseAddress& address : addresses()) {
        std::vector<float> ours(4 * kBlocks);
        fill_normal(address, ours);
        for (std::uint32_t block = 0; block < kBlocks; ++block) {
            auto state = curand_at(address, block);
            const float4 theirs = curand_normal4(&state);
            const float* four = ours.data() + std::size_t{4} * block;
            // Same operations in the same order; a compiler may pick another sine, 1 ulp off.
            constexpr float kBound = 6.8F * 1.2e-7F;
            EXPECT_NEAR(four[0], theirs.x, kBound);
            EXPECT_NEAR(four[1], theirs.y, kBound);
            EXPECT_NEAR(four[2], theirs.z, kBound);
            EXPECT_NEAR(four[3], theirs.w, kBound);
        }
    }
}

struct DestroyGenerator {
    void operator()(curandGenerator_t generator) const { curandDestroyGenerator(generator); }
};
using Generator = std::unique_ptr<curandGenerator_st, DestroyGenerator>;

Generator host_generator(std::uint64_t seed) {
    curandGenerator_t generator = nullptr;
    EXPECT_EQ(curandCreateGeneratorHost(&generator, CURAND_RNG_PSEUDO_PHILOX4_32_10),
              CURAND_STATUS_SUCCESS);
    EXPECT_EQ(curandSetPseudoRandomGeneratorSeed(generator, seed), CURAND_STATUS_SUCCESS);
    return Generator(generator);
}

// The library's generator deals blocks to 65 536 subsequences in turn, and a subsequence is an
// example of ours: element i of its output is word i mod 4 of block i / 2^18 of example
// (i / 4) mod 2^16.
constexpr std::uint32_t kSubsequences = 65536;

template <class Draw>
void compare_with_generator(Draw compare) {
    for (const std::uint32_t block : {0U, 1U}) {
        for (const std::uint32_t example : {0U, 1U, 2U, 4097U, kSubsequences - 1}) {
            compare(block, example, (std::size_t{block} * kSubsequences + example) * 4);
        }
    }
}

TEST(Curand, HostGeneratorDrawsTheSameWords) {
    const Generator generator = host_generator(99);
    std::vector<std::uint32_t> theirs(std::size_t{2} * kSubsequences * 4);
    ASSERT_EQ(curandGenerate(generator.get(), theirs.data(), theirs.size()), CURAND_STATUS_SUCCESS);
    compare_with_generator([&](std::uint32_t block, std::uint32_t example, std::size_t at) {
        const auto ours = noise_block({99, Purpose::initialization, 0, example, 0}, block);
        for (std::size_t w = 0; w < 4; ++w) EXPECT_EQ(ours[w], theirs[at + w]) << at + w;
    });
}

TEST(Curand, HostGeneratorDrawsTheSameUniforms) {
    const Generator generator = host_generator(99);
    std::vector<float> theirs(std::size_t{2} * kSubsequences * 4);
    ASSERT_EQ(curandGenerateUniform(generator.get(), theirs.data(), theirs.size()),
              CURAND_STATUS_SUCCESS);
    compare_with_generator([&](std::uint32_t block, std::uint32_t example, std::size_t at) {
        std::array<float, 8> ours{};
        fill_uniform({99, Purpose::initialization, 0, example, 0}, ours);
        for (std::size_t w = 0; w < 4; ++w) EXPECT_EQ(ours[4 * block + w], theirs[at + w]);
    });
}

TEST(Curand, HostGeneratorDrawsTheSameNormals) {
    const Generator generator = host_generator(99);
    std::vector<float> theirs(std::size_t{2} * kSubsequences * 4);
    ASSERT_EQ(curandGenerateNormal(generator.get(), theirs.data(), theirs.size(), 0.0F, 1.0F),
              CURAND_STATUS_SUCCESS);
    compare_with_generator([&](std::uint32_t block, std::uint32_t example, std::size_t at) {
        std::array<float, 8> ours{};
        fill_normal({99, Purpose::initialization, 0, example, 0}, ours);
        for (std::size_t w = 0; w < 4; ++w) {
            // The library brings its own logarithm and sine: a few roundings of up to 6.8.
            EXPECT_NEAR(ours[4 * block + w], theirs[at + w], 6.8F * 5 * 1.2e-7F);
        }
    });
}

}  // namespace
}  // namespace vae
