// Random numbers inside a kernel: cuRAND's Philox4x32-10, used as a function of an address. This is
// the only file that includes cuRAND's device header.
//
// The counter of Philox is 128 bits: cuRAND's subsequence is its upper and offset/4 its lower half.
//   subsequence = example | step << 32
//   offset / 4  = block | (sample | purpose << 24) << 32,  sample < 2^24, purpose < 2^6
// One block of four words serves elements 4·block … 4·block+3 of an example.
#pragma once

#include <cuda_runtime.h>
#include <curand_kernel.h>

#include <cstdint>

#include "kernels/noise.h"

namespace vae::kernels {

// The stream with its step read from where it stands.
__device__ inline NoiseStream at_its_step(NoiseStream noise) {
    if (noise.state != nullptr) noise.step = static_cast<std::uint32_t>(noise.state->step);
    return noise;
}

// The functions below take a stream whose step is read.

// A generator about to give the four words of `block`. It lives in registers and dies at once.
__device__ inline curandStatePhilox4_32_10_t philox_at(const NoiseStream& noise,
                                                       std::uint32_t example, std::uint32_t block) {
    const auto wide = [](std::uint32_t low, std::uint32_t high) {
        return static_cast<unsigned long long>(high) << 32 | low;
    };
    curandStatePhilox4_32_10_t state;
    curand_init(noise.seed, wide(example, noise.step),
                4 * wide(block, noise.sample | noise.purpose << 24), &state);
    return state;
}

// Word 0 of block 0.
__device__ inline std::uint32_t first_word(const NoiseStream& noise, std::uint32_t example) {
    curandStatePhilox4_32_10_t state = philox_at(noise, example, 0);
    return curand4(&state).x;
}

// Uniforms in (0, 1] of elements 4·block … 4·block+3: word·2^-32 + 2^-33, in float.
__device__ inline float4 uniform4(const NoiseStream& noise, std::uint32_t example,
                                  std::uint32_t block) {
    curandStatePhilox4_32_10_t state = philox_at(noise, example, block);
    return curand_uniform4(&state);
}

// Standard normals of elements 4·block … 4·block+3 (Box & Muller 1958). cuRAND takes sine and
// cosine from the fast hardware unit, whose error the radius multiplies, by up to 6.8. The tests
// allow an absolute error of 1e-5 a normal; on a GPU it has not been measured yet.
__device__ inline float4 normal4(const NoiseStream& noise, std::uint32_t example,
                                 std::uint32_t block) {
    curandStatePhilox4_32_10_t state = philox_at(noise, example, block);
    return curand_normal4(&state);
}

// Member `index` of a vector of four, without an indexed (and so spilled) array.
__device__ inline float member(const float4& four, unsigned index) {
    const float low = index == 0 ? four.x : four.y;
    const float high = index == 2 ? four.z : four.w;
    return index < 2 ? low : high;
}

}  // namespace vae::kernels
