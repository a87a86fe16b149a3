// How the factors of a product come to shared memory: in stages of 128 bytes of depth of a tile's
// 32 rows or columns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/async_copy.cuh"
#include "kernels/dense_factors.cuh"

namespace vae::kernels {

// Rows of factors, one after the other.
template <class T>
struct FactorMatrix {
    const T* data;
    int rows;
    int columns;
    int stride = 0;  // of a gated layer's weight: from its linear part's rows to the gate's

    // Whether each row can be copied so many bytes at a time.
    __host__ __device__ bool is_of_units(std::uintptr_t bytes) const {
        return sizeof(T) * static_cast<std::uintptr_t>(columns) % bytes == 0 &&
               reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
    }
};

inline constexpr int kDenseTile = 32;      // rows and columns of the result
inline constexpr int kDenseThreads = 256;  // eight warps

// How a stage of a factor lies in shared memory. Rows are so far apart that no two lanes of a warp,
// which reads 8 rows of 4 words or 4 rows of 8 elements, find different words in one bank.
template <class T, Order kOrder>
struct StageLayout {
    static constexpr int kDepth = 128 / sizeof(T);
    static constexpr int kRows = kOrder == Order::outer_major ? kDenseTile : kDepth;
    static constexpr int kColumns = kOrder == Order::outer_major ? kDepth : kDenseTile;
    static constexpr int kPitch =
        kColumns + (kOrder == Order::outer_major ? 16 / static_cast<int>(sizeof(T)) : 8);
    static constexpr int kElements = kRows * kPitch;
    static_assert(kElements * sizeof(T) % 16 == 0, "units are copied to multiples of their size");

    static __device__ int offset(int outer, int depth) {
        return kOrder == Order::outer_major ? outer * kPitch + depth : depth * kPitch + outer;
    }
};

// Where the tile of a factor that a thread copies from begins, and its own element of it. Of a
// gated layer's weight (kIsPair) the first half of a tile is of the linear part, the other of the
// gate's rows.
template <class T, Order kOrder, bool kIsPair>
struct TileElement {
    bool is_inside;      // in outer
    int depth;           // of the element, in the first stage
    std::size_t offset;  // of it

    __device__ TileElement(const FactorMatrix<T>& from, int first_outer, int row, int column) {
        constexpr bool kOuterMajor = kOrder == Order::outer_major;
        depth = kOuterMajor ? column : row;
        int outer = kOuterMajor ? row : column;
        const bool is_gate = kIsPair && outer >= kDenseTile / 2;
        if (is_gate) outer -= kDenseTile / 2;
        outer += first_outer;
        is_inside = outer < (kOuterMajor ? from.rows : from.columns);
        if (is_gate) outer += from.stride;
        offset = static_cast<std::size_t>(kOuterMajor ? outer : depth) *
                     static_cast<std::size_t>(from.columns) +
                 static_cast<std::size_t>(kOuterMajor ? depth : outer);
    }
};

// Starts a thread's copies of one factor, stage after stage from the first on; what is outside of
// the matrix becomes zero. 16 bytes of each stage, of a matrix of such units.
template <class T, Order kOrder, bool kIsPair>
class WideCopier {
    using Layout = StageLayout<T, kOrder>;
    static constexpr int kUnit = 16 / static_cast<int>(sizeof(T));
    static constexpr unsigned kInRow = Layout::kColumns / kUnit;
    static_assert(Layout::kRows * kInRow == kDenseThreads);

  public:
    // `stages` is where the factor's first stage goes; `depth` and `first_outer` are the product's.
    __device__ WideCopier(const FactorMatrix<T>& from, int depth, int first_outer, T* stages) {
        const auto row = static_cast<int>(threadIdx.x / kInRow);
        const int column = static_cast<int>(threadIdx.x % kInRow) * kUnit;
        const TileElement<T, kOrder, kIsPair> element(from, first_outer, row, column);
        source_ = from.data + (element.is_inside ? element.offset : 0);
        left_ = element.is_inside ? depth - element.depth : 0;
        step_ = Layout::kDepth;
        if (kOrder == Order::depth_major) step_ *= static_cast<std::size_t>(from.columns);
        to_ = shared_address(stages + row * Layout::kPitch + column);
    }
    // The next stage, into the place `offset` bytes behind the first stage's.
    __device__ void start(unsigned offset) {
        copy_16_async(to_ + offset, source_, left_ > 0);
        source_ += step_;
        left_ -= Layout::kDepth;
    }

  private:
    const T* source_;
    std::size_t step_;
    int left_;  // of the depth
    SharedAddress to_;
};

// The same of any matrix, 4 bytes or an element at a time.
template <class T, Order kOrder, bool kIsPair>
class NarrowCopier {
    using Layout = StageLayout<T, kOrder>;

  public:
    __device__ NarrowCopier(const FactorMatrix<T>& from, int depth, int first_outer, T* stages)
        : from_(from), first_outer_(first_outer), depth_(depth), stages_(stages) {}
    __device__ void start(unsigned offset) {
        T* const stage = stages_ + offset / sizeof(T);
        if (sizeof(T) == 4 || from_.is_of_units(4)) {
            copy<4 / sizeof(T)>(stage);
        } else {
            copy<1>(stage);
        }
        first_depth_ += Layout::kDepth;
    }

  private:
    template <unsigned kUnit>
    __device__ void copy(T* stage) const {
        constexpr unsigned kInRow = Layout::kColumns / kUnit;
        constexpr unsigned kCopies = Layout::kRows * kInRow / kDenseThreads;
        static_assert(kCopies * kDenseThreads == Layout::kRows * kInRow);
#pragma unroll 4  // of small units there are more, and no haste
        for (unsigned i = 0; i < kCopies; ++i) {
            const unsigned unit = threadIdx.x + i * kDenseThreads;
            const auto row = static_cast<int>(unit / kInRow);
            const auto column = static_cast<int>(unit % kInRow * kUnit);
            const TileElement<T, kOrder, kIsPair> element(from_, first_outer_, row, column);
            const bool is_there = element.is_inside && first_depth_ + element.depth < depth_;
            const T* const source = from_.data + element.offset + depth_offset();
            T* const to = stage + row * Layout::kPitch + column;
            if (!is_there) {
                for (unsigned j = 0; j < kUnit; ++j) to[j] = T(0.0f);
            } else if constexpr (kUnit * sizeof(T) == 4) {
                __pipeline_memcpy_async(to, source, 4);
            } else {
                *to = *source;
            }
        }
    }
    __device__ std::size_t depth_offset() const {
        const auto depth = static_cast<std::size_t>(first_depth_);
        return kOrder == Order::outer_major ? depth
                                            : depth * static_cast<std::size_t>(from_.columns);
    }

    const FactorMatrix<T>& from_;
    int first_outer_;
    int depth_;
    int first_depth_ = 0;  // of the next stage
    T* stages_;
};

}  // namespace vae::kernels
