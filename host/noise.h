// Noise as a function of an address, not of a generator's state: Philox4x32-10 (Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011) keyed by the seed, with the address as
// its counter. cuRAND's generator of the same name, started with
// curand_init(seed, subsequence = example | step << 32,
//             offset = 4·(block | (sample | purpose << 24) << 32)), gives the same words.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vae {

// What a number is for. Each value is part of the format: changing one changes every run.
enum class Purpose : std::uint32_t {
    initialization = 0,
    shuffle = 1,
    dynamic_binarization = 2,
    fixed_binarization = 3,
    epsilon = 4,             // of training steps
    evaluation_epsilon = 5,  // of evaluation, step 0
    prior_sample = 6,
    synthetic_data = 7,
    likelihood_sample = 8,   // step: the attempt of a sampler that rejects
    importance_epsilon = 9,  // of the draws that estimate log p(x), step 0
};

// (seed, purpose, step, global example index, Monte Carlo sample). The example index counts through
// training, validation and test examples in that order. sample < 2^24; purpose < 2^6.
struct NoiseAddress {
    std::uint64_t seed = 0;
    Purpose purpose = Purpose::initialization;
    std::uint32_t step = 0;
    std::uint32_t example = 0;
    std::uint32_t sample = 0;
};

using PhiloxBlock = std::array<std::uint32_t, 4>;

// Ten rounds of Philox4x32 on counter (least significant word first) under key.
PhiloxBlock philox4x32_10(PhiloxBlock counter, std::array<std::uint32_t, 2> key);

// The four words of elements 4·block … 4·block+3 at an address.
PhiloxBlock noise_block(const NoiseAddress& address, std::uint32_t block);

// Uniforms in (0, 1], word·2^-32 + 2^-33 in float, as curand_uniform: out[i] is element i.
void fill_uniform(const NoiseAddress& address, std::span<float> out);

// Standard normals by Box-Muller as curand_normal4: words (a, b) of a block give
// s·sin v, s·cos v with u, v the float uniforms of a and of b·2π, s = sqrt(-2 ln u). The double
// version takes the same float u and v and does the rest in double.
void fill_normal(const NoiseAddress& address, std::span<float> out);
void fill_normal(const NoiseAddress& address, std::span<double> out);

}  // namespace vae
