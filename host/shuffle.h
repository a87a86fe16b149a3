// The order of the training examples in an epoch, as a function of (seed, epoch): any part of it
// can be had without the rest, by host and device alike.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace vae {

// A permutation of 0 … count−1, count >= 1, by a Feistel network of kRounds rounds on the bits of a
// position (Luby & Rackoff, "How to construct pseudorandom permutations from pseudorandom
// functions", SIAM J. Comput. 1988). Of the b = max(2, bits of count − 1) bits the lower ⌊b/2⌋ are
// the low half, the others the high one. Even rounds i do high ^= F(i, low), odd ones
// low ^= F(i, high), each cut to the half's bits; F(i, h) is the first word of the Philox block at
// (seed, Purpose::shuffle, step = epoch, example = h, sample = i), element block 0. A result of
// count or more goes through the network again, until it is less.
class Shuffle {
  public:
    static constexpr std::uint32_t kRounds = 16;

    Shuffle(std::uint64_t seed, std::uint32_t epoch, std::uint32_t count);

    // Throws std::invalid_argument unless position is less than count.
    std::uint32_t row(std::uint32_t position) const;

  private:
    std::uint32_t count_;
    unsigned low_bits_;
    unsigned high_bits_;
    std::array<std::vector<std::uint32_t>, kRounds> words_;  // F of each round and half, cut
};

// All of it, in order; count may be 0.
std::vector<std::uint32_t> shuffled_rows(std::uint64_t seed, std::uint32_t epoch,
                                         std::uint32_t count);

// The last step of an epoch takes what is left. batch is at least 1.
constexpr std::uint64_t steps_per_epoch(std::uint64_t examples, std::uint32_t batch) {
    return (examples + batch - 1) / batch;
}

}  // namespace vae
