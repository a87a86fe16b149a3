#include "kernels/accumulate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

class Accumulate : public KernelTest {
  protected:
    std::vector<float> sum(const std::vector<float>& total, const std::vector<float>& part,
                           std::size_t shift = 0) {
        auto device_total = upload(total, shift);
        auto device_part = upload(part, shift);
        kernels::accumulate(device_part.data(), part.size(), device_total.data(), stream().get());
        if (!part.empty()) expect_same_bits(device_part.download(), part, "part");
        return device_total.download();
    }
};

// A sum of two floats has one right rounding, so bits are compared.
TEST_F(Accumulate, EverySize) {
    for (const std::size_t size :
         {1, 3, 4, 31, 32, 33, 255, 256, 257, 1009, 2047, 2048, 2049, 2052, 4099, 65537}) {
        for (const std::size_t shift : {0, 1, 4}) {
            SCOPED_TRACE(testing::Message() << size << ", shift " << shift);
            const std::vector<float> total = random_normals(size, 1);
            const std::vector<float> part = random_normals(size, 2, 30);
            std::vector<float> want(size);
            for (std::size_t i = 0; i < size; ++i) want[i] = total[i] + part[i];
            expect_same_bits(sum(total, part, shift), want, "total");
        }
    }
    EXPECT_TRUE(sum({}, {}).empty());
}

TEST_F(Accumulate, NanComesThrough) {
    const std::vector<float> got = sum({kNan, 1, 2}, {1, kNan, 3});
    EXPECT_TRUE(std::isnan(got[0]));
    EXPECT_TRUE(std::isnan(got[1]));
    EXPECT_EQ(got[2], 5.0f);
}

}  // namespace
}  // namespace vae::test
