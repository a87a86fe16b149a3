// A product of two matrices in tiles, and what becomes of its elements: the kernel of
// kernels/dense.h.
//
// A block computes 32×32 elements of the result. Factors come to shared memory in stages of 128
// bytes of depth, three of which are on their way while one is multiplied. Eight warps share a
// stage: each has a quarter of the tile, and half of the depth.
#pragma once

#include <cuda_pipeline.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/dense.h"
#include "kernels/dense_factors.cuh"
#include "kernels/launch.h"
#include "kernels/shared_memory.cuh"

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
inline constexpr int kDenseStages = 4;
inline constexpr int kDenseHalves = 2;  // of a stage's depth
inline constexpr int kDenseSumPitch = kDenseTile + 4;

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

template <class T, Order kOrderA, Order kOrderB>
constexpr std::size_t dense_shared_bytes() {
    constexpr std::size_t kStage =
        StageLayout<T, kOrderA>::kElements + StageLayout<T, kOrderB>::kElements;
    constexpr std::size_t kBytes = kDenseStages * sizeof(T) * kStage;
    static_assert(
        kBytes >= sizeof(float) * (kDenseHalves * kDenseTile * kDenseSumPitch + kDenseThreads),
        "the sums take the stages' place");
    return kBytes;
}

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

// A warp's part of a stage: a quarter of the tile, half of the depth.
template <FactorKind kKind, Order kOrderA, Order kOrderB>
class WarpPart {
    using T = FactorElement<kKind>;
    using Of = Factors<kKind>;
    using LayoutA = StageLayout<T, kOrderA>;
    using LayoutB = StageLayout<T, kOrderB>;
    static constexpr int kRows = 16;
    static constexpr int kColumns = 8;  // of an instruction; two of them make a quarter's
    using Sums = float[2][4];

  public:
    __device__ WarpPart()
        : row_(warp() / 2 % 2 * kRows), column_(warp() % 2 * 2 * kColumns), half_(warp() / 4) {}

    // The sums += a·b
    __device__ void add(const T* a, const T* b) {
        if constexpr (Of::kSumsApart) {
            Sums apart = {};
            add_to(apart, a, b);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sums_[0][i] += apart[0][i];
                sums_[1][i] += apart[1][i];
            }
        } else {
            add_to(sums_, a, b);
        }
    }
    // To sums[kDenseHalves][kDenseTile][kDenseSumPitch].
    __device__ void store(float* sums) const {
        using Lane = Fragment<kColumns>;
        float* const to = sums + (half_ * kDenseTile + row_ + Lane::group()) * kDenseSumPitch +
                          column_ + 2 * Lane::in_group();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int offset = i / 2 * 8 * kDenseSumPitch + i % 2;
            to[offset] = sums_[0][i];
            to[offset + kColumns] = sums_[1][i];
        }
    }

  private:
    static __device__ int warp() {
        return static_cast<int>(threadIdx.x / kWarpSize);
    }
    __device__ void add_to(Sums& to, const T* a, const T* b) const {
        constexpr int kHalf = LayoutA::kDepth / kDenseHalves;
#pragma unroll
        for (int step = 0; step < kHalf; step += Of::kDepth) {
            const int depth = half_ * kHalf + step;
            typename Of::template Of<kRows> of_a;
            Of::template load<LayoutA>(a, row_, depth, of_a);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                typename Of::template Of<kColumns> of_b;
                Of::template load<LayoutB>(b, column_ + i * kColumns, depth, of_b);
                Of::multiply(of_a, of_b, to[i]);
            }
        }
    }

    int row_;  // of the tile, as the next
    int column_;
    int half_;
    Sums sums_ = {};
};

// The sums of a over depth, of those blocks that have the first columns of the result: a warp has
// an eighth of each stage.
template <class Epilogue, class T, Order kOrderA>
struct FactorSums {
    using Layout = StageLayout<T, kOrderA>;
    static constexpr int kEighths = kDenseThreads / kDenseTile;
    static constexpr int kDepth = Layout::kDepth / kEighths;

    float sum = 0;

    __device__ int outer() const { return static_cast<int>(threadIdx.x % kDenseTile); }
    __device__ int eighth() const { return static_cast<int>(threadIdx.x / kDenseTile); }
    __device__ void add(const T* a) {
        if constexpr (Epilogue::kSumsOfA) {
            if (blockIdx.y != 0) return;
#pragma unroll
            for (int i = 0; i < kDepth; ++i) {
                sum += static_cast<float>(a[Layout::offset(outer(), eighth() * kDepth + i)]);
            }
        }
    }
    // By all threads; `partials` is for kDenseThreads floats.
    __device__ void finish(const Epilogue& epilogue, int first_row, int rows, float* partials) {
        if constexpr (Epilogue::kSumsOfA) {
            if (blockIdx.y != 0) return;
            partials[threadIdx.x] = sum;
            __syncthreads();
            if (eighth() != 0 || first_row + outer() >= rows) return;
            double total = 0;
            for (int i = 0; i < kEighths; ++i) {
                total += static_cast<double>(partials[i * kDenseTile + outer()]);
            }
            epilogue.store_sum(first_row + outer(), total);
        }
    }
};

// The size of a result, which may have more columns than there are factors for: those are zero.
struct DenseResult {
    int rows;
    int columns;
};

// An Epilogue is a struct with
//   static constexpr int kSums;     // of an element: 1, or 2, of a gated layer's weight
//   static constexpr bool kSumsOfA; // whether the sums of a over depth are wanted
//   Loaded load(int row, int column);   // what an element needs beside, read before the product
//   void apply(int row, int column, const float (&sums)[kSums], const Loaded&);  // stores it
//   void store_sum(int row, double sum);   // if kSumsOfA
template <FactorKind kKind, Order kOrderA, Order kOrderB, class Epilogue>
class DenseBlock {
    using T = FactorElement<kKind>;
    using LayoutA = StageLayout<T, kOrderA>;
    using LayoutB = StageLayout<T, kOrderB>;
    static constexpr int kStage = LayoutA::kElements + LayoutB::kElements;
    static constexpr int kColumns = kDenseTile / Epilogue::kSums;  // of the result
    static constexpr int kRowsAtOnce = kDenseThreads / kColumns;
    static constexpr int kElements = kDenseTile / kRowsAtOnce;  // of a thread

  public:
    __device__ DenseBlock(const FactorMatrix<T>& a, const FactorMatrix<T>& b,
                          const DenseResult& result, const Epilogue& epilogue)
        : a_(a),
          b_(b),
          result_(result),
          epilogue_(epilogue),
          depth_(kOrderA == Order::outer_major ? a.columns : a.rows),
          first_row_(static_cast<int>(blockIdx.x) * kDenseTile),
          first_column_(static_cast<int>(blockIdx.y) * kColumns) {}

    __device__ void run() {
        for (int stage = 0; stage < kDenseStages - 1; ++stage) start_copy(stage);
        typename Epilogue::Loaded loaded[kElements];
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            if (is_inside(i)) loaded[i] = epilogue_.load(row(i), column());
        }
        WarpPart<kKind, kOrderA, kOrderB> part;
        FactorSums<Epilogue, T, kOrderA> sums_of_a;
        for (int stage = 0; stage * LayoutA::kDepth < depth_; ++stage) {
            __pipeline_wait_prior(kDenseStages - 2);
            __syncthreads();  // the stage is there for all, and the one before it read by all
            start_copy(stage + kDenseStages - 1);
            const T* const of_a = stage_of(stage);
            part.add(of_a, of_a + LayoutA::kElements);
            sums_of_a.add(of_a);
        }
        __pipeline_wait_prior(0);
        __syncthreads();  // what follows takes the stages' place
        float* const sums = dynamic_shared<float>();
        part.store(sums);
        sums_of_a.finish(epilogue_, first_row_, result_.rows,
                         sums + kDenseHalves * kDenseTile * kDenseSumPitch);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            if (is_inside(i)) finish(i, sums, loaded[i]);
        }
    }

  private:
    static __device__ T* stage_of(int stage) {
        return dynamic_shared<T>() + stage % kDenseStages * kStage;
    }
    // Commits even if there is no such stage, so that as many are ahead at any time.
    __device__ void start_copy(int stage) const {
        const int depth = stage * LayoutA::kDepth;
        if (depth < depth_) {
            T* const to = stage_of(stage);
            copy_stage<kOrderA>(a_, first_row_, depth, to);
            copy_stage<kOrderB>(b_, first_column_, depth, to + LayoutA::kElements);
        }
        __pipeline_commit();
    }
    // Of a thread's element i.
    __device__ int row(int i) const {
        return first_row_ + static_cast<int>(threadIdx.x / kColumns) + i * kRowsAtOnce;
    }
    __device__ int column() const {
        return first_column_ + static_cast<int>(threadIdx.x % kColumns);
    }
    __device__ bool is_inside(int i) const {
        return row(i) < result_.rows && column() < result_.columns;
    }
    __device__ void finish(int i, const float* sums,
                           const typename Epilogue::Loaded& loaded) const {
        const float* const here =
            sums + (row(i) - first_row_) * kDenseSumPitch + (column() - first_column_);
        float of_halves[Epilogue::kSums];
#pragma unroll
        for (int k = 0; k < Epilogue::kSums; ++k) {
            const float* const sum = here + k * kColumns;
            of_halves[k] = sum[0] + sum[kDenseTile * kDenseSumPitch];
        }
        epilogue_.apply(row(i), column(), of_halves, loaded);
    }

    const FactorMatrix<T>& a_;
    const FactorMatrix<T>& b_;
    const DenseResult& result_;
    const Epilogue& epilogue_;
    int depth_;
    int first_row_;
    int first_column_;
};

template <FactorKind kKind, Order kOrderA, Order kOrderB, class Epilogue>
__global__ void __launch_bounds__(kDenseThreads, 2)
    dense_kernel(const FactorMatrix<FactorElement<kKind>> a,
                 const FactorMatrix<FactorElement<kKind>> b, const DenseResult result,
                 const Epilogue epilogue) {
    DenseBlock<kKind, kOrderA, kOrderB, Epilogue>(a, b, result, epilogue).run();
}

// rows and columns of the result, at least 1.
template <FactorKind kKind, Order kOrderA, Order kOrderB, class Epilogue>
void launch_dense(const char* launcher, const FactorMatrix<FactorElement<kKind>>& a,
                  const FactorMatrix<FactorElement<kKind>>& b, const DenseResult& result,
                  const Epilogue& epilogue, cudaStream_t stream) {
    constexpr int kColumns = kDenseTile / Epilogue::kSums;
    constexpr int kMostTiles = 65535;  // of a grid's second dimension
    const auto tiles = [](int size, int tile) {
        return static_cast<unsigned>((size - 1) / tile + 1);
    };
    require(tiles(result.columns, kColumns) <= kMostTiles, launcher,
            "the result has too many columns");
    const LaunchShape shape = {
        .grid = {tiles(result.rows, kDenseTile), tiles(result.columns, kColumns)},
        .block = {static_cast<unsigned>(kDenseThreads)},
        .shared_bytes = dense_shared_bytes<FactorElement<kKind>, kOrderA, kOrderB>()};
    launch(launcher, dense_kernel<kKind, kOrderA, kOrderB, Epilogue>, shape, stream, a, b, result,
           epilogue);
}

// Throws std::invalid_argument unless the sizes are a layer's and the arrays are stored alike.
inline void require_dense(const char* launcher, const DenseSize& size,
                          std::initializer_list<ConstReals> arrays) {
    require(size.rows >= 0, launcher, "rows must not be negative");
    require(size.in >= 1 && size.out >= 1, launcher, "a layer has at least one input and output");
    for (const ConstReals& array : arrays) {
        require(array.storage == arrays.begin()->storage, launcher, "arrays are not stored alike");
    }
}

inline void require_gate(const char* launcher, const DenseGate& gate, int columns) {
    require(gate.stride >= columns, launcher,
            "stride must not be less than a gated layer's outputs");
    require(gate.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
}

// Calls body with the kind of factors as a constant.
template <class Body>
void with_factors(Storage storage, FloatFactors factors, const Body& body) {
    if (storage == Storage::bf16) {
        body(std::integral_constant<FactorKind, FactorKind::bf16>{});
    } else if (factors == FloatFactors::tf32) {
        body(std::integral_constant<FactorKind, FactorKind::tf32>{});
    } else {
        body(std::integral_constant<FactorKind, FactorKind::two_tf32>{});
    }
}

}  // namespace vae::kernels
