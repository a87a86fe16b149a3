// The order of examples in an epoch, on the device: any part of it without the rest.
// host/shuffle.h has the same permutation, written independently; a test holds the two together.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/philox.cuh"

namespace vae::kernels {

inline constexpr unsigned kShuffleRounds = 16;

// Where a position in the order of `count` examples, count >= 1, leads: a Feistel network on its
// bits, repeated until the result is less than count. noise: the seed, the purpose and, as step,
// the epoch; its sample is the round.
__device__ inline std::uint32_t shuffled(NoiseStream noise, std::uint32_t position,
                                         std::uint32_t count) {
    const unsigned needed =
        count < 2 ? 0u : 32u - static_cast<unsigned>(__clz(static_cast<int>(count - 1)));
    const unsigned bits = needed < 2 ? 2 : needed;
    const unsigned low_bits = bits / 2;
    const std::uint32_t low_mask = (1u << low_bits) - 1;
    const std::uint32_t high_mask = (1u << (bits - low_bits)) - 1;
    std::uint32_t value = position;
    do {
        std::uint32_t low = value & low_mask;
        std::uint32_t high = value >> low_bits;
        for (unsigned round = 0; round < kShuffleRounds; ++round) {
            const bool from_low = round % 2 == 0;
            noise.sample = round;
            const std::uint32_t word = first_word(noise, from_low ? low : high);
            high ^= from_low ? word & high_mask : 0;
            low ^= from_low ? 0 : word & low_mask;
        }
        value = high << low_bits | low;
    } while (value >= count);
    return value;
}

}  // namespace vae::kernels
