#include "poisoned_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace emulation {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kPage = 4096;

TEST(PoisonedMemory, IsPoisonWhateverWasWrittenBefore) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{257}, kMiB - 1, kMiB, kMiB + 1,
                                   8 * kMiB, 16 * kMiB + kPage + 1}) {
        for (int round = 0; round < 2; ++round) {
            auto* const block = static_cast<unsigned char*>(allocate_poisoned(size));
            ASSERT_NE(block, nullptr);
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 256, 0U);
            EXPECT_TRUE(std::all_of(block, block + size, [](int byte) { return byte == 0xff; }))
                << size << " bytes, round " << round;
            std::memset(block, 1, size);
            release_poisoned(block, size);
        }
    }
}

TEST(PoisonedMemory, LargeBlocksAreApart) {
    auto* const one = static_cast<unsigned char*>(allocate_poisoned(kMiB));
    auto* const other = static_cast<unsigned char*>(allocate_poisoned(kMiB));
    one[5] = 7;
    EXPECT_EQ(other[5], 0xff);
    release_poisoned(one, kMiB);
    release_poisoned(other, kMiB);
}

TEST(PoisonedMemoryDeathTest, AnAccessOutsideALargeBlockEndsTheProgram) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
#ifdef __SANITIZE_ADDRESS__
    const std::size_t size = kMiB + 1;
#else
    const std::size_t size = kMiB;
#endif
    auto* const block = static_cast<volatile unsigned char*>(allocate_poisoned(size));
    EXPECT_DEATH(block[size] = 1, "");
    EXPECT_DEATH(block[-1] = 1, "");
    release_poisoned(const_cast<unsigned char*>(block), size);
}

}  // namespace
}  // namespace emulation
