// Matrix instructions of a warp: what they come to, how they round, and what is no use of them.
#include <gmock/gmock.h>

#include <cuda_bf16.h>

#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "emulation_fixture.h"
#include "kernels/tensor_cores.cuh"

namespace emulation {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kRows = 16;
constexpr int kColumns = 8;

// a[16, depth], b[depth, 8] and sum[16, 8] in memory, by rows; what a lane's registers have of them
// as PTX ISA says it of mma.m16n8k8 with .tf32 and of mma.m16n8k16 with .bf16, register by
// register.
struct InTf32 {
    static constexpr int kDepth = 8;

    static float stored(float value) {
        return std::bit_cast<float>(vae::kernels::rounded_to_tf32(value));
    }
    __device__ static unsigned from_a(const float* a, int i) {
        const int group = static_cast<int>(threadIdx.x) / 4 % 8;
        const int row = i == 0 || i == 2 ? group : group + 8;
        const int column = static_cast<int>(threadIdx.x) % 4 + (i < 2 ? 0 : 4);
        return std::bit_cast<unsigned>(a[row * kDepth + column]);
    }
    __device__ static unsigned from_b(const float* b, int i) {
        const int row = static_cast<int>(threadIdx.x) % 4 + (i == 0 ? 0 : 4);
        return std::bit_cast<unsigned>(b[row * kColumns + static_cast<int>(threadIdx.x) / 4 % 8]);
    }
    __device__ static void multiply(const unsigned (&a)[4], const unsigned (&b)[2],
                                    float (&sum)[4]) {
        vae::kernels::multiply_tf32(a, b, sum);
    }
};

struct InBf16 {
    static constexpr int kDepth = 16;

    static float stored(float value) { return __bfloat162float(__float2bfloat16(value)); }
    static unsigned two(float first, float second) {
        return std::bit_cast<unsigned>(first) >> 16 |
               (std::bit_cast<unsigned>(second) & 0xffff0000u);
    }
    __device__ static unsigned from_a(const float* a, int i) {
        const int group = static_cast<int>(threadIdx.x) / 4 % 8;
        const int row = i == 0 || i == 2 ? group : group + 8;
        const int column = static_cast<int>(threadIdx.x) % 4 * 2 + (i < 2 ? 0 : 8);
        return two(a[row * kDepth + column], a[row * kDepth + column + 1]);
    }
    __device__ static unsigned from_b(const float* b, int i) {
        const int row = static_cast<int>(threadIdx.x) % 4 * 2 + (i == 0 ? 0 : 8);
        const int column = static_cast<int>(threadIdx.x) / 4 % 8;
        return two(b[row * kColumns + column], b[(row + 1) * kColumns + column]);
    }
    __device__ static void multiply(const unsigned (&a)[4], const unsigned (&b)[2],
                                    float (&sum)[4]) {
        vae::kernels::multiply_bf16(a, b, sum);
    }
};

// Of a sum's register i, the place in memory.
__device__ int place_of(int i) {
    const int row = static_cast<int>(threadIdx.x) / 4 % 8 + (i < 2 ? 0 : 8);
    return row * kColumns + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
}

// Each warp has a sum of its own.
template <class In>
__global__ void product_kernel(const float* a, const float* b, float* sums) {
    float* const own = sums + threadIdx.x / 32 * kRows * kColumns;
    const unsigned of_a[4] = {In::from_a(a, 0), In::from_a(a, 1), In::from_a(a, 2),
                              In::from_a(a, 3)};
    const unsigned of_b[2] = {In::from_b(b, 0), In::from_b(b, 1)};
    float sum[4];
    for (int i = 0; i < 4; ++i) sum[i] = own[place_of(i)];
    In::multiply(of_a, of_b, sum);
    for (int i = 0; i < 4; ++i) own[place_of(i)] = sum[i];
}

template <class In>
class TensorCores : public EmulationTest {
  protected:
    static constexpr int kDepth = In::kDepth;

    static std::vector<float> random_values(std::size_t size, std::uint64_t seed) {
        Random random{seed};
        std::vector<float> values(size);
        for (float& value : values) {
            value = static_cast<float>(random.below(1u << 20)) * 0x1p-19f - 1.0f;
        }
        return values;
    }
    static std::vector<float> stored(std::vector<float> values) {
        for (float& value : values) value = In::stored(value);
        return values;
    }

    // What element (0, 0) of the sum becomes of factors whose other rows and columns are zero.
    float dot(const std::vector<float>& row, const std::vector<float>& column, float c) {
        std::vector<float> a(kRows * kDepth, 0.0f);
        std::vector<float> b(kDepth * kColumns, 0.0f);
        for (std::size_t k = 0; k < row.size(); ++k) {
            a[k] = In::stored(row[k]);
            b[k * kColumns] = In::stored(column[k]);
        }
        std::vector<float> sum(kRows * kColumns, 0.0f);
        sum[0] = c;
        const Buffer<float> device_a(a);
        const Buffer<float> device_b(b);
        const Buffer<float> device_sum(sum);
        this->launch(product_kernel<In>, 1, 32, 0, device_a.data(), device_b.data(),
                     device_sum.data());
        EXPECT_EQ(this->synchronize(), cudaSuccess);
        return device_sum.download()[0];
    }
};

using Types = testing::Types<InTf32, InBf16>;
TYPED_TEST_SUITE(TensorCores, Types);

// The sum of each warp must be a b + c, rounded once and toward zero.
TYPED_TEST(TensorCores, AddProductsOfMatrices) {
    constexpr std::size_t kTerms = TypeParam::kDepth;
    const auto a = TestFixture::stored(TestFixture::random_values(kRows * kTerms, 1));
    const auto b = TestFixture::stored(TestFixture::random_values(kTerms * kColumns, 2));
    const auto c = TestFixture::random_values(2 * kRows * kColumns, 3);
    const Buffer<float> device_a(a);
    const Buffer<float> device_b(b);
    for (const Order order : kOrders) {
        set_order(order, 4);
        const Buffer<float> sums(c);
        this->launch(product_kernel<TypeParam>, 1, 64, 0, device_a.data(), device_b.data(),
                     sums.data());
        ASSERT_EQ(this->synchronize(), cudaSuccess);
        const std::vector<float> d = sums.download();
        for (std::size_t at = 0; at < d.size(); ++at) {
            double exact = c[at];
            for (std::size_t k = 0; k < kTerms; ++k) {
                exact += double{a[at / kColumns % kRows * kTerms + k]} *
                         double{b[k * kColumns + at % kColumns]};
            }
            const float away = std::nextafter(d[at], exact < 0 ? -kInf : kInf);
            ASSERT_LE(std::abs(double{d[at]}), std::abs(exact)) << at;
            ASSERT_GT(std::abs(double{away}), std::abs(exact)) << at;
        }
    }
}

TYPED_TEST(TensorCores, RoundASumOnceTowardZero) {
    const float below_half = 0x1p-24f * 0.75f;
    const float above_half = 0x1p-24f * 1.5f;
    EXPECT_EQ(this->dot({above_half}, {1}, 1), 1.0f) << "to nearest it would be the next";
    EXPECT_EQ(this->dot({-above_half}, {1}, -1), -1.0f);
    EXPECT_EQ(this->dot({-below_half}, {1}, 2), 2 - 0x1p-23f);
    EXPECT_EQ(this->dot({0x1p-24f, 0x1p-24f}, {1, 1}, 1), 1 + 0x1p-23f) << "added one by one: 1";
    EXPECT_EQ(this->dot({0x1p100f, 1, -0x1p100f}, {1, 1, 1}, 0x1p60f), 0x1p60f);
    EXPECT_EQ(this->dot({0x1p-100f}, {0x1.8p-49f}, 0), 0x1p-149f) << "subnormal";
    EXPECT_EQ(this->dot({-0x1p-100f}, {0x1.8p-50f}, 0), 0.0f);
}

TYPED_TEST(TensorCores, LetNanAndInfinityThrough) {
    EXPECT_TRUE(std::isnan(this->dot({kNan}, {1}, 0)));
    EXPECT_TRUE(std::isnan(this->dot({1}, {1}, kNan)));
    EXPECT_TRUE(std::isnan(this->dot({kInf}, {0}, 1)));
    EXPECT_TRUE(std::isnan(this->dot({kInf}, {1}, -kInf)));
    EXPECT_EQ(this->dot({-kInf}, {2}, 1), -kInf);
    EXPECT_EQ(this->dot({0x1p127f, 0x1p127f}, {1, 1}, 0), kInf);
    EXPECT_EQ(this->dot({0x1p64f}, {-0x1p64f}, 0), -kInf);
}

TEST(Tf32, RoundsToNearestTiesAwayFromZero) {
    const auto rounded = [](float value) { return InTf32::stored(value); };
    EXPECT_EQ(rounded(1 + 0x1p-11f), 1 + 0x1p-10f);
    EXPECT_EQ(rounded(-1 - 0x1p-11f), -1 - 0x1p-10f);
    EXPECT_EQ(rounded(1 + 0x1p-11f - 0x1p-23f), 1.0f);
    EXPECT_EQ(rounded(std::numeric_limits<float>::max()), kInf);
    EXPECT_EQ(rounded(-kInf), -kInf);
    EXPECT_TRUE(std::isnan(rounded(kNan)));
    EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7f800001u)))) << "not infinity";
    EXPECT_EQ(std::bit_cast<std::uint32_t>(rounded(1.2345678f)) & 0x1fffu, 0u);
}

class Warps : public EmulationTest {};

TEST_F(Warps, CutWhatNobodyRoundedToTf32) {
    std::vector<float> a(kRows * 8, 0.0f);
    std::vector<float> b(8 * kColumns, 0.0f);
    a[0] = 1 + 0x1p-11f;
    b[0] = 2;
    const Buffer<float> device_a(a);
    const Buffer<float> device_b(b);
    const Buffer<float> sum(std::vector<float>(kRows * kColumns, 0.0f));
    launch(product_kernel<InTf32>, 1, 32, 0, device_a.data(), device_b.data(), sum.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_EQ(sum.download()[0], 2.0f);
}

// A warp of which lane 5, or the upper half, does something else than to multiply.
enum class Apart { exits, at_another_line, in_another_operation, in_another_shape };
template <Apart kApart>
__global__ void apart_kernel() {
    const unsigned a[4] = {};
    const unsigned b[2] = {};
    float sum[4] = {};
    if (kApart == Apart::exits ? threadIdx.x != 5 : threadIdx.x < 16) {
        vae::kernels::multiply_tf32(a, b, sum);
        return;
    }
    if constexpr (kApart == Apart::at_another_line) vae::kernels::multiply_tf32(a, b, sum);
    if constexpr (kApart == Apart::in_another_operation) __syncwarp();
    if constexpr (kApart == Apart::in_another_shape) vae::kernels::multiply_bf16(a, b, sum);
}

TEST_F(Warps, MultiplyWithAllTheirLanesOrDie) {
    constexpr const char* kFile = "tensor_cores_test.cpp";
    expect_end(
        "in a matrix instruction with mask 0xffffffff, of which lanes 0x00000020 have exited",
        kFile, apart_kernel<Apart::exits>);
    expect_end("call a matrix instruction apart, at different lines", kFile,
               apart_kernel<Apart::at_another_line>);
    expect_end("different operations", kFile, apart_kernel<Apart::in_another_operation>);
    expect_end("different operations", kFile, apart_kernel<Apart::in_another_shape>);
    const Buffer<float> some(std::vector<float>(256, 0.0f));
    launch(product_kernel<InTf32>, 1, 40, 0, some.data(), some.data(), some.data());
    EXPECT_EQ(synchronize(), cudaErrorLaunchFailure);
    EXPECT_TRUE(last_message_has("of which the block has only 8 lanes")) << last_message();
    reset();
}

}  // namespace
}  // namespace emulation
