#include "host/shuffle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "host/noise.h"

namespace vae {
namespace {

TEST(Shuffle, IsAPermutationAtEverySize) {
    for (const std::uint32_t count : {0U, 1U, 2U, 31U, 1000U}) {
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

// The keys, taken from the generator here, are in order.
TEST(Shuffle, SortsByTheAddressedKey) {
    const auto key = [](std::uint32_t row) {
        const PhiloxBlock words = noise_block({9, Purpose::shuffle, 5, row, 0}, 0);
        return words[0] + (std::uint64_t{words[1]} << 32);
    };
    const auto rows = shuffled_rows(9, 5, 257);
    EXPECT_TRUE(
        std::is_sorted(rows.begin(), rows.end(), [&](auto a, auto b) { return key(a) < key(b); }));
}

// A count may grow without the order of the rows that were there.
TEST(Shuffle, RowsKeepTheirOrderWhenOthersAreAdded) {
    auto more = shuffled_rows(1, 0, 60);
    std::erase_if(more, [](std::uint32_t row) { return row >= 50; });
    EXPECT_EQ(more, shuffled_rows(1, 0, 50));
}

}  // namespace
}  // namespace vae
