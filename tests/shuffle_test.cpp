#include "host/shuffle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>

#include "host/noise.h"

namespace vae {
namespace {

TEST(Shuffle, IsAPermutationAtEverySize) {
    for (const std::uint32_t count : {0U, 1U, 2U, 3U, 4U, 5U, 31U, 32U, 33U, 1000U, 60000U}) {
        std::vector<std::uint32_t> rows = shuffled_rows(1, 0, count);
        std::sort(rows.begin(), rows.end());
        std::vector<std::uint32_t> all(count);
        std::iota(all.begin(), all.end(), 0U);
        EXPECT_EQ(rows, all);
    }
}

TEST(Shuffle, DependsOnSeedAndEpochAlone) {
    const auto rows = shuffled_rows(1, 3, 100);
    EXPECT_EQ(shuffled_rows(1, 3, 100), rows);
    EXPECT_NE(shuffled_rows(1, 4, 100), rows);
    EXPECT_NE(shuffled_rows(2, 3, 100), rows);
}

// Written again from the description: one position, each word asked of the generator.
std::uint32_t row_of(std::uint64_t seed, std::uint32_t epoch, std::uint32_t position,
                     std::uint32_t count) {
    const int bits = std::max(2, static_cast<int>(std::bit_width(count - 1)));
    const std::uint32_t low_size = 1U << bits / 2;
    const std::uint32_t high_size = 1U << (bits - bits / 2);
    std::uint32_t low = position % low_size;
    std::uint32_t high = position / low_size;
    for (std::uint32_t i = 0; i < 16; ++i) {
        const std::uint32_t from = i % 2 == 0 ? low : high;
        const std::uint32_t word = noise_block({seed, Purpose::shuffle, epoch, from, i}, 0)[0];
        if (i % 2 == 0) {
            high ^= word % high_size;
        } else {
            low ^= word % low_size;
        }
    }
    const std::uint32_t result = high * low_size + low;
    return result < count ? result : row_of(seed, epoch, result, count);
}

TEST(Shuffle, IsTheNetworkThatItSays) {
    for (const std::uint32_t count : {1U, 2U, 3U, 5U, 100U, 257U}) {
        const Shuffle shuffle(9, 5, count);
        for (std::uint32_t i = 0; i < count; ++i) EXPECT_EQ(shuffle.row(i), row_of(9, 5, i, count));
    }
    // Of an order that nobody would write down.
    const Shuffle large(9, 5, 4'000'000'000U);
    for (const std::uint32_t i : {0U, 1U, 3'999'999'999U}) {
        EXPECT_EQ(large.row(i), row_of(9, 5, i, 4'000'000'000U));
    }
}

// All orders of four examples are as frequent as they should be, over many epochs: the bound is
// four standard deviations of the statistic above its mean, 23.
TEST(Shuffle, EveryOrderIsAsLikely) {
    constexpr std::uint32_t kEpochs = 24000;
    std::map<std::vector<std::uint32_t>, double> seen;
    for (std::uint32_t epoch = 0; epoch < kEpochs; ++epoch) seen[shuffled_rows(3, epoch, 4)] += 1;
    EXPECT_EQ(seen.size(), 24U);
    const double expected = kEpochs / 24.0;
    double chi = 0;
    for (const auto& [order, count] : seen) {
        chi += (count - expected) * (count - expected) / expected;
    }
    EXPECT_LT(chi, 23 + 4 * std::sqrt(2.0 * 23));
}

// Neighbours in the order are far apart as often as strangers are: the mean distance of two
// uniform numbers is a third of the range. Four standard errors
// of that mean, of a standard deviation of 0.236.
TEST(Shuffle, NeighboursAreStrangers) {
    constexpr std::uint32_t kCount = 60000;
    const auto rows = shuffled_rows(1, 0, kCount);
    double distance = 0;
    for (std::size_t i = 1; i < rows.size(); ++i) {
        distance += std::abs(static_cast<double>(rows[i]) - rows[i - 1]);
    }
    EXPECT_NEAR(distance / kCount / kCount, 1.0 / 3, 4 * 0.236 / std::sqrt(kCount));
}

TEST(Shuffle, WhatIsNotInTheOrderIsRefused) {
    EXPECT_THROW(Shuffle(1, 0, 0), std::invalid_argument);
    EXPECT_THROW((void)Shuffle(1, 0, 5).row(5), std::invalid_argument);
}

}  // namespace
}  // namespace vae
