// The order of the training examples in an epoch, as a function of (seed, epoch).
#pragma once

#include <cstdint>
#include <vector>

namespace vae {

// A permutation of 0 … count-1: rows sorted by (key, row), where a row's key is the first two
// words, low word first, of the Philox block at (seed, Purpose::shuffle, step = epoch, row),
// element block 0.
std::vector<std::uint32_t> shuffled_rows(std::uint64_t seed, std::uint32_t epoch,
                                         std::uint32_t count);

// The last step of an epoch takes what is left. batch is at least 1.
constexpr std::uint64_t steps_per_epoch(std::uint64_t examples, std::uint32_t batch) {
    return (examples + batch - 1) / batch;
}

}  // namespace vae
