#include "kernels/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

class Convert : public KernelTest {
  protected:
    std::vector<float> rounded(const std::vector<float>& values, std::size_t shift = 0) {
        auto from = upload(values, shift);
        DeviceArray<Bf16> to(stream(), values.size(), shift);
        kernels::round_to_bf16(from.data(), values.size(), to.data(), stream().get());
        return from_bf16(to.download());
    }
};

// Of all numbers that are not NaN there is one right result, so bits are compared.
TEST_F(Convert, EverySize) {
    for (const std::size_t size : {1,    3,    4,    31,   32,   33,   101,  255,  256,  257,
                                   1023, 1024, 1025, 2044, 2047, 2048, 2049, 2052, 4099, 65537}) {
        for (const std::size_t shift : {0, 1, 2}) {
            SCOPED_TRACE(testing::Message() << size << ", shift " << shift << ", seed " << kSeed);
            const std::vector<float> values = random_normals(size, 1, 30);
            expect_same_bits(rounded(values, shift), from_bf16(to_bf16(values)), "rounded");
        }
    }
    EXPECT_TRUE(rounded({}).empty());
}

// Ties go to even, overflow to infinity, subnormals stay what they are, signs stay.
TEST_F(Convert, EveryPatternOfTheUpperHalf) {
    std::vector<float> values;
    for (std::uint32_t high = 0; high < 0x10000; ++high) {
        for (const std::uint32_t low : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
            const float value = std::bit_cast<float>(high << 16 | low);
            if (!std::isnan(value)) values.push_back(value);
        }
    }
    expect_same_bits(rounded(values), from_bf16(to_bf16(values)), "rounded");
}

TEST_F(Convert, KnownValues) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<float> values = {0.0f,         -0.0f,           1.0f,
                                       1 + 0x1p-8f,  1 + 3 * 0x1p-8f, 1 + 0x1.2p-8f,
                                       -0x1.FFp127f, 0x1p-133f,       kInfinity};
    const std::vector<float> want = {0.0f,        -0.0f,      1.0f,      1.0f,     1 + 0x1p-6f,
                                     1 + 0x1p-7f, -kInfinity, 0x1p-133f, kInfinity};
    expect_same_bits(rounded(values), want, "rounded");
    EXPECT_TRUE(std::isnan(rounded({kNan})[0]));
    EXPECT_TRUE(std::isnan(rounded({std::bit_cast<float>(0xFF800001u)})[0]));
}

TEST(Reals, AnArrayFromAnElementOn) {
    std::vector<float> floats(4);
    std::vector<Bf16> halves(4);
    const kernels::Reals of_floats = floats.data();
    const kernels::ConstReals of_halves = kernels::Reals(halves.data());
    EXPECT_EQ(of_floats.from(3).of<float>(), floats.data() + 3);
    EXPECT_EQ(of_floats.from(3).storage, Storage::fp32);
    EXPECT_EQ(of_halves.from(3).of<Bf16>(), halves.data() + 3);
    EXPECT_EQ(of_halves.from(3).storage, Storage::bf16);
    EXPECT_EQ(kernels::Reals(nullptr).data, nullptr);
}

}  // namespace
}  // namespace vae::test
