// How the factors of a product come to shared memory: in stages of 128 bytes of depth of a tile's
// 32 rows or columns.
#pragma once

#include <cuda_pipeline.h>

#include <cstddef>
#include <cstdint>

#include "kernels/dense_factors.cuh"

namespace vae::kernels {

// Rows of factors, one after the other.
template <class T>
struct FactorMatrix {
    const T* data;
    int rows;
    int columns;
    int copy_bytes;  // that can be copied at once: 16, 4 or an element
    int stride = 0;  // of a gated layer's weight: from its linear part's rows to the gate's

    FactorMatrix(const T* array, int of_rows, int of_columns)
        : data(array), rows(of_rows), columns(of_columns), copy_bytes(sizeof(T)) {
        const std::uintptr_t pitch = sizeof(T) * static_cast<std::uintptr_t>(columns);
        for (const int bytes : {4, 16}) {
            const auto unit = static_cast<std::uintptr_t>(bytes);
            const bool fits =
                pitch % unit == 0 && reinterpret_cast<std::uintptr_t>(array) % unit == 0;
            if (fits) copy_bytes = bytes;
        }
    }
};

inline constexpr int kDenseTile = 32;      // rows and columns of the result
inline constexpr int kDenseThreads = 256;  // eight warps

// How a stage of a factor lies in shared memory. Rows are so far apart that the lanes of a warp,
// which read 8 rows of 4 floats or 4 rows of 8, find them in 32 different banks.
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

template <int kBytes>
struct CopyUnit;
template <>
struct CopyUnit<2> {
    using Type = unsigned short;
};
template <>
struct CopyUnit<4> {
    using Type = unsigned;
};
template <>
struct CopyUnit<16> {
    using Type = uint4;
};

// The stage's part of the matrix from this row and column on; what is outside of it is zero. Of a
// gated layer's weight the first half of a tile is of the linear part, the other of the gate's
// rows.
template <int kBytes, class Layout, class T>
__device__ void copy_units(const FactorMatrix<T>& from, int first_row, int first_column, T* stage) {
    using Unit = typename CopyUnit<kBytes>::Type;
    constexpr int kUnit = kBytes / static_cast<int>(sizeof(T));
    constexpr int kInRow = Layout::kColumns / kUnit;
    constexpr int kCopies = Layout::kRows * kInRow / kDenseThreads;
    static_assert(kCopies * kDenseThreads == Layout::kRows * kInRow);
#pragma unroll 4  // of small units there are more, and no haste
    for (int i = 0; i < kCopies; ++i) {
        const unsigned unit = threadIdx.x + static_cast<unsigned>(i * kDenseThreads);
        const int row = static_cast<int>(unit / kInRow);
        const int column = static_cast<int>(unit % kInRow) * kUnit;
        T* const to = stage + row * Layout::kPitch + column;
        const bool is_gate = from.stride > 0 && row >= kDenseTile / 2;
        const int from_row = first_row + (is_gate ? row - kDenseTile / 2 : row);
        if (from_row >= from.rows || first_column + column >= from.columns) {
            *reinterpret_cast<Unit*>(to) = Unit{};
            continue;
        }
        const int memory_row = is_gate ? from_row + from.stride : from_row;
        const T* const source = from.data + static_cast<std::size_t>(memory_row) * from.columns +
                                static_cast<std::size_t>(first_column + column);
        if constexpr (kBytes >= 4) {
            __pipeline_memcpy_async(to, source, kBytes);
        } else {
            *to = *source;
        }
    }
}

// Starts to copy a stage: of the factor's tile from `outer` on, what lies from `depth` on.
template <Order kOrder, class T>
__device__ void copy_stage(const FactorMatrix<T>& from, int outer, int depth, T* stage) {
    using Layout = StageLayout<T, kOrder>;
    const int row = kOrder == Order::outer_major ? outer : depth;
    const int column = kOrder == Order::outer_major ? depth : outer;
    if (from.copy_bytes == 16) {
        copy_units<16, Layout>(from, row, column, stage);
    } else if (from.copy_bytes == 4) {
        copy_units<4, Layout>(from, row, column, stage);
    } else {
        copy_units<sizeof(T), Layout>(from, row, column, stage);
    }
}

}  // namespace vae::kernels
