// A product of two matrices in tiles, and what becomes of its elements: the kernel of
// kernels/dense*.h.
//
// A block computes 32×32 sums. Three stages of its factors are on their way while one is
// multiplied. Eight warps share a stage: each has a quarter of the tile, and half of the depth.
#pragma once

#include <cuda_pipeline.h>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/dense.h"
#include "kernels/dense_stage.cuh"
#include "kernels/launch.h"
#include "kernels/programmatic.cuh"
#include "kernels/reduce.cuh"
#include "kernels/scratch.h"
#include "kernels/shared_memory.cuh"

namespace vae::kernels {

inline constexpr int kDenseStages = 4;
inline constexpr int kDenseHalves = 2;  // of a stage's depth

// Shared memory of a block's sums, which take the stages' place.
struct DenseSums {
    float tile[kDenseHalves][kDenseTile][kDenseTile + 4];  // each row 4 banks further
    float of_a[kDenseThreads];
    unsigned is_last;  // of the blocks that have sums of these rows
};

template <class T, Order kOrderA, Order kOrderB>
constexpr std::size_t dense_shared_bytes() {
    constexpr std::size_t kStage =
        StageLayout<T, kOrderA>::kElements + StageLayout<T, kOrderB>::kElements;
    constexpr std::size_t kBytes = kDenseStages * sizeof(T) * kStage;
    static_assert(kBytes >= sizeof(DenseSums));
    return kBytes;
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
    __device__ void store(DenseSums& sums) const {
        using Lane = Fragment<kColumns>;
        const int row = row_ + Lane::group();
        const int column = column_ + 2 * Lane::in_group();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float* const to = &sums.tile[half_][row + i / 2 * 8][column + i % 2];
            to[0] = sums_[0][i];
            to[kColumns] = sums_[1][i];
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
    // By all threads.
    __device__ void finish(const Epilogue& epilogue, int first_row, int rows,
                           float (&partials)[kDenseThreads]) {
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

// What an Epilogue may inherit: one sum an element, and no others.
struct PlainEpilogue {
    static constexpr int kSums = 1;
    static constexpr bool kSumsOfA = false;
    static constexpr bool kRowSums = false;
};

// An Epilogue is a struct with
//   static constexpr int kSums;         // of an element: 1, or 2, by a gated layer's weight
//   static constexpr bool kSumsOfA;     // whether the sums of a over depth are wanted
//   static constexpr bool kRowSums;     // whether sums over the result's rows are
//   Loaded load(int row, int column);   // what an element needs beside, read before the product
//   void apply(int row, int column, const float (&sums)[kSums], const Loaded&);  // stores it, and
//                                       // returns a float, the term of the row's sum, if kRowSums
//   void store_sum(int row, double sum);    // if kSumsOfA
//   void store_row(int row, double sum);    // if kRowSums; then it has a Scratch `scratch`, for an
//                                           // array of the result's rows and kSums·columns
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

    // The first stages of b, which an early start may read, are on their way before the kernel
    // ahead is waited for. They are of the first group of copies then, with the first stage of a.
    __device__ void run() {
        for (int stage = 0; stage < kDenseStages - 1; ++stage) start_copy_of_b(stage);
        wait_for_previous_kernel();
        let_next_kernel_start();  // only now, so that no more than one is ahead of any
        for (int stage = 0; stage < kDenseStages - 1; ++stage) {
            start_copy_of_a(stage);
            __pipeline_commit();
        }
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
            start_copy_of_a(stage + kDenseStages - 1);
            start_copy_of_b(stage + kDenseStages - 1);
            __pipeline_commit();  // of nothing too, so that as many are ahead at any time
            const T* const of_a = stage_of(stage);
            part.add(of_a, of_a + LayoutA::kElements);
            sums_of_a.add(of_a);
        }
        __pipeline_wait_prior(0);
        __syncthreads();  // what follows takes the stages' place
        DenseSums& sums = *dynamic_shared<DenseSums>();
        part.store(sums);
        sums_of_a.finish(epilogue_, first_row_, result_.rows, sums.of_a);
        __syncthreads();
        float terms[kElements] = {};
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            if (is_inside(i)) terms[i] = finish(i, sums, loaded[i]);
        }
        if constexpr (Epilogue::kRowSums) sum_rows(terms, sums);
    }

  private:
    static __device__ T* stage_of(int stage) {
        return dynamic_shared<T>() + stage % kDenseStages * kStage;
    }
    // If there is such a stage.
    __device__ void start_copy_of_a(int stage) const {
        const int depth = stage * LayoutA::kDepth;
        if (depth < depth_) copy_stage<kOrderA>(a_, first_row_, depth, stage_of(stage));
    }
    __device__ void start_copy_of_b(int stage) const {
        const int depth = stage * LayoutB::kDepth;
        if (depth >= depth_) return;
        copy_stage<kOrderB>(b_, first_column_, depth, stage_of(stage) + LayoutA::kElements);
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
    // Returns the term of the row's sum.
    __device__ float finish(int i, const DenseSums& sums,
                            const typename Epilogue::Loaded& loaded) const {
        float both[Epilogue::kSums];
#pragma unroll
        for (int k = 0; k < Epilogue::kSums; ++k) {
            const int at = column() - first_column_ + k * kColumns;
            both[k] = sums.tile[0][row(i) - first_row_][at] + sums.tile[1][row(i) - first_row_][at];
        }
        if constexpr (Epilogue::kRowSums) {
            return epilogue_.apply(row(i), column(), both, loaded);
        } else {
            epilogue_.apply(row(i), column(), both, loaded);
            return 0;
        }
    }
    __device__ float* row_slot(int row, unsigned tile) const {
        return epilogue_.scratch.partials + static_cast<std::size_t>(row) * gridDim.y + tile;
    }
    // The sums of the tile's rows go to their slots, or where they belong if the tile has all
    // columns; the last block of a row of tiles adds the slots up.
    __device__ void sum_rows(const float (&terms)[kElements], DenseSums& sums) const {
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            float sum = terms[i];
#pragma unroll
            for (int distance = kColumns / 2; distance > 0; distance /= 2) {
                sum += __shfl_xor_sync(kFullWarp, sum, distance);
            }
            if (threadIdx.x % kColumns != 0 || row(i) >= result_.rows) continue;
            if (gridDim.y == 1) {
                epilogue_.store_row(row(i), sum);
            } else {
                *row_slot(row(i), blockIdx.y) = sum;
            }
        }
        if (gridDim.y == 1) return;
        __syncthreads();  // the block's slots are written, before thread 0 says so
        if (threadIdx.x == 0) {
            __threadfence();
            sums.is_last =
                take_last_ticket(epilogue_.scratch.tickets + blockIdx.x, gridDim.y) ? 1U : 0U;
            __threadfence();  // and the others' slots are seen, before the block reads them
        }
        __syncthreads();
        if (sums.is_last != 0) add_slots();
    }
    __device__ void add_slots() const {
        constexpr int kWarps = kDenseThreads / static_cast<int>(kWarpSize);
        for (int i = static_cast<int>(threadIdx.x / kWarpSize); i < kDenseTile; i += kWarps) {
            const int row = first_row_ + i;
            if (row >= result_.rows) return;  // the whole warp
            double sum = 0;
            for (unsigned tile = threadIdx.x % kWarpSize; tile < gridDim.y; tile += kWarpSize) {
                sum += *row_slot(row, tile);
            }
            sum = warp_sum(sum);
            if (threadIdx.x % kWarpSize == 0) epilogue_.store_row(row, sum);
        }
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
                  const Epilogue& epilogue, const DenseStream& on) {
    constexpr int kColumns = kDenseTile / Epilogue::kSums;
    constexpr int kMostTiles = 65535;  // of a grid's second dimension
    const auto tiles = [](int size, int tile) {
        return static_cast<unsigned>((size - 1) / tile + 1);
    };
    require(tiles(result.columns, kColumns) <= kMostTiles, launcher,
            "the result has too many columns");
    if constexpr (Epilogue::kRowSums) {
        const ScratchSize size = scratch_size(result.rows, Epilogue::kSums * result.columns);
        require(epilogue.scratch.partials_size >= size.partials &&
                    epilogue.scratch.tickets_size >= size.tickets,
                launcher, "scratch is smaller than scratch_size says");
    }
    const LaunchShape shape = {
        .grid = {tiles(result.rows, kDenseTile), tiles(result.columns, kColumns)},
        .block = {static_cast<unsigned>(kDenseThreads)},
        .shared_bytes = dense_shared_bytes<FactorElement<kKind>, kOrderA, kOrderB>(),
        .starts_early = on.starts_early};
    launch(launcher, dense_kernel<kKind, kOrderA, kOrderB, Epilogue>, shape, on.stream, a, b,
           result, epilogue);
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
