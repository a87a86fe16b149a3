// Products of tiles by a warp: what they come to, how they round, and what is no use of them.
#include <gmock/gmock.h>

#include <mma.h>

#include <cmath>
#include <limits>
#include <optional>

#include "emulation_fixture.h"
#include "kernels/shared_memory.cuh"

namespace emulation {
namespace {

namespace wmma = nvcuda::wmma;
using testing::Each;
using vae::kernels::dynamic_shared;
using wmma::accumulator;
using wmma::col_major;
using wmma::fragment;
using wmma::matrix_a;
using wmma::matrix_b;
using wmma::row_major;
using wmma::precision::tf32;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// What fragments of 16x16xkDepth have.
struct InTf32 {
    using Type = tf32;
    using Stored = float;
    static constexpr int kDepth = 8;
    static Stored stored(float value) { return wmma::__float_to_tf32(value); }
    static double value(Stored stored) { return stored; }
};
struct InBf16 {
    using Type = __nv_bfloat16;
    using Stored = __nv_bfloat16;
    static constexpr int kDepth = 16;
    static Stored stored(float value) { return __float2bfloat16(value); }
    static double value(Stored stored) { return __bfloat162float(stored); }
};

template <class In, class Layout>
using FragmentA = fragment<matrix_a, 16, 16, In::kDepth, typename In::Type, Layout>;
template <class In, class Layout>
using FragmentB = fragment<matrix_b, 16, 16, In::kDepth, typename In::Type, Layout>;
template <class In>
using Sum = fragment<accumulator, 16, 16, In::kDepth, float>;

// A matrix in memory: elements (i, j), by rows or by columns, `ld` apart.
struct InMemory {
    unsigned ld;
    bool by_rows;
    std::size_t at(int i, int j) const {
        const auto slow = static_cast<std::size_t>(by_rows ? i : j);
        return slow * ld + static_cast<std::size_t>(by_rows ? j : i);
    }
};

template <class In, class OfA, class OfB>
__global__ void product_kernel(const typename In::Stored* a, const typename In::Stored* b,
                               const float* c, float* d, unsigned ld, unsigned ld_of_sum,
                               wmma::layout_t layout) {
    // Each warp has a sum of its own.
    const std::size_t first = threadIdx.x / 32 * 16 * ld_of_sum;
    FragmentA<In, OfA> of_a;
    FragmentB<In, OfB> of_b;
    Sum<In> sum;
    wmma::load_matrix_sync(of_a, a, ld);
    wmma::load_matrix_sync(of_b, b, ld);
    wmma::load_matrix_sync(sum, c + first, ld_of_sum, layout);
    wmma::mma_sync(sum, of_a, of_b, sum);
    wmma::store_matrix_sync(d + first, sum, ld_of_sum, layout);
}

template <class In>
class Mma : public EmulationTest {
  protected:
    using Stored = typename In::Stored;
    static constexpr int kDepth = In::kDepth;
    static constexpr int kSums = 2;  // warps
    static constexpr unsigned kLd = 24;
    static constexpr unsigned kLdOfSum = 20;

    static std::vector<float> random_values(std::size_t size, std::uint64_t seed) {
        Random random{seed};
        std::vector<float> values(size);
        for (float& value : values) {
            value = static_cast<float>(random.below(1u << 20)) * 0x1p-19f - 1.0f;
        }
        return values;
    }
    static std::vector<Stored> stored(const std::vector<float>& values) {
        std::vector<Stored> result;
        result.reserve(values.size());
        for (const float value : values) result.push_back(In::stored(value));
        return result;
    }

    // The sum of each warp must be a b + c, rounded once and toward zero.
    template <class OfA, class OfB>
    void expect_product(wmma::layout_t layout) {
        const InMemory of_a{kLd, std::is_same_v<OfA, row_major>};
        const InMemory of_b{kLd, std::is_same_v<OfB, row_major>};
        const InMemory of_sum{kLdOfSum, layout == wmma::mem_row_major};
        const auto a = stored(random_values(16 * kLd, 1));
        const auto b = stored(random_values(16 * kLd, 2));
        const auto c = random_values(16 * kLdOfSum * kSums, 3);
        const Buffer<Stored> device_a(a);
        const Buffer<Stored> device_b(b);
        const Buffer<float> device_c(c);
        const Buffer<float> device_d(c.size());
        for (const Order order : kOrders) {
            set_order(order, 4);
            this->launch(product_kernel<In, OfA, OfB>, 1, 32 * kSums, 0, device_a.data(),
                         device_b.data(), device_c.data(), device_d.data(), kLd, kLdOfSum, layout);
            ASSERT_EQ(this->synchronize(), cudaSuccess);
            const std::vector<float> d = device_d.download();
            for (int warp = 0; warp < kSums; ++warp) {
                for (int i = 0; i < 16; ++i) {
                    for (int j = 0; j < 16; ++j) {
                        const std::size_t at = of_sum.at(i, j) + 16 * kLdOfSum * warp;
                        double exact = 0;
                        for (int k = 0; k < kDepth; ++k) {
                            exact += In::value(a[of_a.at(i, k)]) * In::value(b[of_b.at(k, j)]);
                        }
                        exact += c[at];
                        const float away = std::nextafter(d[at], exact < 0 ? -kInf : kInf);
                        ASSERT_LE(std::abs(double{d[at]}), std::abs(exact)) << i << ", " << j;
                        ASSERT_GT(std::abs(double{away}), std::abs(exact)) << i << ", " << j;
                    }
                }
            }
        }
    }

    // What element (0, 0) of the sum becomes of factors whose other rows and columns are zero.
    float dot(const std::vector<float>& row, const std::vector<float>& column, float c) {
        std::vector<Stored> a(16 * kDepth, In::stored(0));
        std::vector<Stored> b = a;
        for (std::size_t k = 0; k < row.size(); ++k) {
            a[k] = In::stored(row[k]);
            b[k] = In::stored(column[k]);
        }
        std::vector<float> sum(256, 0.0f);
        sum[0] = c;
        const Buffer<Stored> device_a(a);
        const Buffer<Stored> device_b(b);
        const Buffer<float> device_sum(sum);
        this->launch(product_kernel<In, row_major, col_major>, 1, 32, 0, device_a.data(),
                     device_b.data(), device_sum.data(), device_sum.data(), kDepth, 16,
                     wmma::mem_row_major);
        EXPECT_EQ(this->synchronize(), cudaSuccess);
        return device_sum.download()[0];
    }
};

using Types = testing::Types<InTf32, InBf16>;
TYPED_TEST_SUITE(Mma, Types);

TYPED_TEST(Mma, MultipliesTilesOfAllLayouts) {
    for (const auto layout : {wmma::mem_row_major, wmma::mem_col_major}) {
        this->template expect_product<row_major, row_major>(layout);
        this->template expect_product<row_major, col_major>(layout);
        this->template expect_product<col_major, row_major>(layout);
        this->template expect_product<col_major, col_major>(layout);
    }
}

TYPED_TEST(Mma, FragmentsHaveAsManyElementsAsOnAGpu) {
    EXPECT_EQ((FragmentA<TypeParam, row_major>::num_elements), TypeParam::kDepth / 2);
    EXPECT_EQ((FragmentB<TypeParam, col_major>::num_elements), TypeParam::kDepth / 2);
    EXPECT_EQ((Sum<TypeParam>::num_elements), 8);
}

TYPED_TEST(Mma, RoundsASumOnceTowardZero) {
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

TYPED_TEST(Mma, NanAndInfinityComeThrough) {
    EXPECT_TRUE(std::isnan(this->dot({kNan}, {1}, 0)));
    EXPECT_TRUE(std::isnan(this->dot({1}, {1}, kNan)));
    EXPECT_TRUE(std::isnan(this->dot({kInf}, {0}, 1)));
    EXPECT_TRUE(std::isnan(this->dot({kInf}, {1}, -kInf)));
    EXPECT_EQ(this->dot({-kInf}, {2}, 1), -kInf);
    EXPECT_EQ(this->dot({0x1p127f, 0x1p127f}, {1, 1}, 0), kInf);
    EXPECT_EQ(this->dot({0x1p64f}, {-0x1p64f}, 0), -kInf);
}

TEST(Tf32, RoundsToNearestTiesAwayFromZero) {
    const auto rounded = [](float value) { return wmma::__float_to_tf32(value); };
    EXPECT_EQ(rounded(1 + 0x1p-11f), 1 + 0x1p-10f);
    EXPECT_EQ(rounded(-1 - 0x1p-11f), -1 - 0x1p-10f);
    EXPECT_EQ(rounded(1 + 0x1p-11f - 0x1p-23f), 1.0f);
    EXPECT_EQ(rounded(std::numeric_limits<float>::max()), kInf);
    EXPECT_EQ(rounded(-kInf), -kInf);
    EXPECT_TRUE(std::isnan(rounded(kNan)));
    EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7f800001u)))) << "not infinity";
    EXPECT_EQ(std::bit_cast<std::uint32_t>(rounded(1.2345678f)) & 0x1fffu, 0u);
}

// a times the identity, of a that all is `value`, rounded or not.
template <bool kRounded>
__global__ void tf32_kernel(float value, float* out) {
    float* const identity = dynamic_shared<float>();
    for (unsigned i = threadIdx.x; i < 8 * 16; i += 32)
        identity[i] = i / 16 == i % 16 ? 1.0f : 0.0f;
    __syncwarp();
    FragmentA<InTf32, row_major> a;
    FragmentB<InTf32, row_major> b;
    Sum<InTf32> sum;
    wmma::fill_fragment(a, value);
    if constexpr (kRounded) {
        for (float& element : a.x) element = wmma::__float_to_tf32(element);
    }
    wmma::load_matrix_sync(b, identity, 16);
    wmma::fill_fragment(sum, 0.0f);
    wmma::mma_sync(sum, a, b, sum);
    for (float& element : sum.x) element *= 2;
    wmma::store_matrix_sync(out, sum, 16, wmma::mem_row_major);
}

class Warps : public EmulationTest {
  protected:
    void SetUp() override {
        EmulationTest::SetUp();
        out_.emplace(32 * 16);
    }
    void TearDown() override {
        out_.reset();
        EmulationTest::TearDown();
    }

    template <class... Parameters>
    std::vector<float> run(void (*kernel)(Parameters...),
                           std::type_identity_t<Parameters>... arguments) {
        launch(kernel, 1, 32, 4096, arguments...);
        EXPECT_EQ(synchronize(), cudaSuccess);
        return out_->download();
    }
    float* out() const { return out_->data(); }
    void expect_end(const std::string& reason, void (*kernel)(float*)) {
        EmulationTest::expect_end(reason, "mma_test.cpp", kernel, out());
    }

  private:
    std::optional<Buffer<float>> out_;
};

TEST_F(Warps, CutWhatNobodyRoundedToTf32) {
    const float tie = 1 + 0x1p-11f;
    EXPECT_EQ(run(tf32_kernel<true>, tie, out())[0], 2 * (1 + 0x1p-10f));
    EXPECT_EQ(run(tf32_kernel<false>, tie, out())[0], 2.0f);
}

// A fragment of one layout copied to one of another, which on a GPU may have its elements
// elsewhere.
__global__ void copied_elements_kernel(float* out) {
    float* const identity = dynamic_shared<float>();
    for (unsigned i = threadIdx.x; i < 8 * 16; i += 32)
        identity[i] = i / 16 == i % 16 ? 1.0f : 0.0f;
    __syncwarp();
    FragmentA<InTf32, row_major> a;
    FragmentB<InTf32, row_major> by_rows;
    FragmentB<InTf32, col_major> b;
    Sum<InTf32> sum;
    wmma::fill_fragment(a, 1.0f);
    wmma::load_matrix_sync(by_rows, identity, 16);
    for (int i = 0; i < b.num_elements; ++i) b.x[i] = by_rows.x[i];
    wmma::fill_fragment(sum, 0.0f);
    wmma::mma_sync(sum, a, b, sum);
    wmma::store_matrix_sync(out, sum, 16, wmma::mem_row_major);
}

TEST_F(Warps, ElementsHaveOtherPlacesInOtherFragments) {
    const std::vector<float> sums = run(copied_elements_kernel, out());
    EXPECT_NE(std::vector<float>(sums.begin(), sums.begin() + 8), std::vector<float>(8, 1.0f));
}

__global__ void nothing_loaded_kernel(float* out) {
    FragmentA<InTf32, row_major> a;
    FragmentB<InTf32, row_major> b;
    Sum<InTf32> sum;
    wmma::fill_fragment(a, 0.0f);
    wmma::fill_fragment(b, 0.0f);
    wmma::mma_sync(sum, a, b, sum);
    wmma::store_matrix_sync(out, sum, 32, wmma::mem_row_major);
}

TEST_F(Warps, WhatNobodyFilledIsPoison) {
    EXPECT_TRUE(std::isnan(run(nothing_loaded_kernel, out())[33]));
}

// A warp of which lane 5, or the upper half, does something else than to multiply.
enum class Apart { exits, at_another_line, in_another_operation, in_another_shape };
template <Apart kApart>
__global__ void apart_kernel(float* out) {
    Sum<InTf32> sum;
    FragmentA<InTf32, row_major> a;
    FragmentB<InTf32, row_major> b;
    if (kApart == Apart::exits ? threadIdx.x != 5 : threadIdx.x < 16) {
        wmma::mma_sync(sum, a, b, sum);
        wmma::store_matrix_sync(out, sum, 16, wmma::mem_row_major);
        return;
    }
    if constexpr (kApart == Apart::at_another_line) wmma::mma_sync(sum, a, b, sum);
    if constexpr (kApart == Apart::in_another_operation) __syncwarp();
    if constexpr (kApart == Apart::in_another_shape) {
        FragmentA<InBf16, row_major> other_a;
        FragmentB<InBf16, row_major> other_b;
        Sum<InBf16> other_sum;
        wmma::mma_sync(other_sum, other_a, other_b, other_sum);
    }
}

TEST_F(Warps, MultiplyWithAllTheirLanesOrDie) {
    expect_end("in mma_sync with mask 0xffffffff, of which lanes 0x00000020 have exited",
               apart_kernel<Apart::exits>);
    expect_end("call mma_sync apart, at different lines", apart_kernel<Apart::at_another_line>);
    expect_end("different operations", apart_kernel<Apart::in_another_operation>);
    expect_end("different operations", apart_kernel<Apart::in_another_shape>);
    launch(nothing_loaded_kernel, 1, 40, 0, out());
    EXPECT_EQ(synchronize(), cudaErrorLaunchFailure);
    EXPECT_TRUE(last_message_has("of which the block has only 8 lanes")) << last_message();
    reset();
}

__global__ void load_kernel(const float* from, unsigned ld, int layout, float* out) {
    Sum<InTf32> sum;
    wmma::load_matrix_sync(sum, from, ld, static_cast<wmma::layout_t>(layout));
    wmma::store_matrix_sync(out, sum, 16, wmma::mem_row_major);
}
__global__ void load_factor_kernel(const __nv_bfloat16* from, unsigned ld) {
    FragmentA<InBf16, row_major> a;
    wmma::load_matrix_sync(a, from, ld);
}
__global__ void store_kernel(float* to, unsigned ld) {
    Sum<InTf32> sum;
    wmma::store_matrix_sync(to, sum, ld, wmma::mem_col_major);
}

TEST_F(Warps, TilesAreAlignedOrTheKernelDies) {
    const auto expect = [&](const std::string& reason, auto kernel, auto... arguments) {
        EmulationTest::expect_end(reason, "mma_test.cpp", kernel, arguments...);
    };
    const Buffer<float> from(std::vector<float>(64 * 64, 7.0f));
    const Buffer<__nv_bfloat16> half(64 * 64);
    const std::string pointer = "with a pointer that is no multiple of 32 bytes";
    const std::string stride = "with a leading dimension that is no multiple of 16 bytes";
    expect("called load_matrix_sync", load_kernel, from.data() + 4, 16, 0, out());
    expect(pointer, load_kernel, from.data() + 4, 16, 0, out());
    expect(stride, load_kernel, from.data(), 18, 0, out());
    expect("with a null pointer", load_kernel, nullptr, 16, 0, out());
    expect("with a layout that there is not", load_kernel, from.data(), 16, 2, out());
    expect(pointer, load_factor_kernel, half.data() + 8, 16);
    expect(stride, load_factor_kernel, half.data(), 20);
    expect("called store_matrix_sync", store_kernel, out() + 1, 16);
    expect(pointer, store_kernel, out() + 1, 16);
    expect(stride, store_kernel, out(), 17);
    expect("lets rows overlap", store_kernel, out(), 12);
    launch(load_kernel, 1, 32, 0, from.data() + 8, 20, 1, out());
    EXPECT_EQ(synchronize(), cudaSuccess);
}

// A product of 16x16xdepth, as kernels compute it: tile by tile, in one fragment.
__global__ void long_product_kernel(const float* a, const float* b, int depth, float* d) {
    Sum<InTf32> sum;
    wmma::fill_fragment(sum, 0.0f);
    for (int k = 0; k < depth; k += 8) {
        FragmentA<InTf32, row_major> of_a;
        FragmentB<InTf32, row_major> of_b;
        wmma::load_matrix_sync(of_a, a + k, static_cast<unsigned>(depth));
        wmma::load_matrix_sync(of_b, b + k * 16, 16);
        wmma::mma_sync(sum, of_a, of_b, sum);
    }
    wmma::store_matrix_sync(d, sum, 16, wmma::mem_row_major);
}

TEST_F(Warps, SumTileByTile) {
    constexpr int kDepth = 256;
    const Buffer<float> a(std::vector<float>(16 * kDepth, 0.5f));
    const Buffer<float> b(std::vector<float>(16 * kDepth, 3.0f));
    const Buffer<float> sum(256);
    launch(long_product_kernel, 1, 32, 0, a.data(), b.data(), kDepth, sum.data());
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(sum.download(), Each(1.5f * kDepth));
}

}  // namespace
}  // namespace emulation
