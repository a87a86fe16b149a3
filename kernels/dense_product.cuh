// A product of two matrices in tiles, and what becomes of its elements: the kernel of
// kernels/dense*.h.
//
// A block computes 32×32 sums. Three stages of its factors are on their way while one is
// multiplied. Eight warps share a stage: each has a quarter of the tile, and half of the depth.
#pragma once

#include <cstddef>
#include <type_traits>

#include "kernels/dense_stage.cuh"
#include "kernels/programmatic.cuh"
#include "kernels/reduce.cuh"
#include "kernels/scratch.h"
#include "kernels/shared_memory.cuh"

namespace vae::kernels {

inline constexpr int kDenseStages = 4;
inline constexpr int kDenseHalves = 2;  // of a stage's depth

// Shared memory of a block's sums, which take the stages' place.
struct DenseSums {
    float tile[kDenseHalves][kDenseTile][kDenseTile + 8];  // rows 8 banks apart
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
            Sums rest = {};
            add_to(apart, rest, a, b);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sums_[0][i] += apart[0][i] + rest[0][i];
                sums_[1][i] += apart[1][i] + rest[1][i];
            }
        } else {
            add_to(sums_, sums_, a, b);
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
    __device__ void add_to(Sums& to, Sums& rest, const T* a, const T* b) const {
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
                Of::multiply(of_a, of_b, to[i], rest[i]);
            }
        }
    }

    int row_;  // of the tile, as the next
    int column_;
    int half_;
    Sums sums_ = {};
};

// The sums of a over depth, which the blocks with the first columns of the result have: a warp has
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
    static constexpr bool kLoadsTogether = false;
};

// The elements of the result that a thread finishes: of one column, and of rows far apart.
template <int kSums>
struct DenseCells {
    static constexpr int kColumns = kDenseTile / kSums;  // of the block
    static constexpr int kRowsAtOnce = kDenseThreads / kColumns;
    static constexpr int kElements = kDenseTile / kRowsAtOnce;

    DenseResult result;
    int first_row;
    int first_column;

    __device__ int row(int i) const {
        return first_row + static_cast<int>(threadIdx.x / kColumns) + i * kRowsAtOnce;
    }
    __device__ int column() const {
        return first_column + static_cast<int>(threadIdx.x % kColumns);
    }
    __device__ bool is_inside(int i) const {
        return row(i) < result.rows && column() < result.columns;
    }
};

// An Epilogue is a struct with
//   static constexpr int kSums;         // of an element: 1, or 2, by a gated layer's weight
//   static constexpr bool kSumsOfA;     // whether the sums of a over depth are wanted
//   static constexpr bool kRowSums;     // whether sums over the result's rows are
//   static constexpr bool kLoadsTogether;
//   Loaded load(int row, int column);
//                                   // what an element needs beside, read before the product; or
//   void load(const DenseCells<kSums>&, Loaded (&)[kElements]);
//                                   // of a thread's elements, with its warp, if kLoadsTogether
//   void apply(int row, int column, const float (&sums)[kSums], const Loaded&);  // stores it, and
//                                       // returns a float, the term of the row's sum, if kRowSums
//   void store_sum(int row, double sum);    // if kSumsOfA
//   void store_row(int row, double sum);    // if kRowSums; then it has a Scratch `scratch`, for an
//                                           // array of the result's rows and kSums·columns
template <FactorKind kKind, Order kOrderA, Order kOrderB, class Epilogue, bool kIsWide>
class DenseBlock {
    using T = FactorElement<kKind>;
    using LayoutA = StageLayout<T, kOrderA>;
    using LayoutB = StageLayout<T, kOrderB>;
    template <Order kOrder, bool kIsPair>
    using Copier = std::conditional_t<kIsWide, WideCopier<T, kOrder, kIsPair>,
                                      NarrowCopier<T, kOrder, kIsPair>>;
    using Cells = DenseCells<Epilogue::kSums>;
    static constexpr int kElements = Cells::kElements;
    static constexpr int kStage = LayoutA::kElements + LayoutB::kElements;

  public:
    __device__ DenseBlock(const FactorMatrix<T>& a, const FactorMatrix<T>& b,
                          const DenseResult& result, const Epilogue& epilogue)
        : epilogue_(epilogue),
          column_tiles_(tiles_of_columns(result)),
          row_tile_(blockIdx.x / column_tiles_),
          column_tile_(blockIdx.x % column_tiles_),
          cells_{result, static_cast<int>(row_tile_) * kDenseTile,
                 static_cast<int>(column_tile_) * Cells::kColumns},
          depth_(kOrderA == Order::outer_major ? a.columns : a.rows),
          copies_of_a_(a, depth_, cells_.first_row, dynamic_shared<T>()),
          copies_of_b_(b, depth_, cells_.first_column, dynamic_shared<T>() + LayoutA::kElements) {}

    static __host__ __device__ unsigned tiles_of_columns(const DenseResult& result) {
        return static_cast<unsigned>((result.columns - 1) / Cells::kColumns + 1);
    }

    // The first stages of b, which an early start may read, are on their way before the kernel
    // ahead is waited for. They are of the first group of copies then, with the first stage of a.
    __device__ void run() {
        for (unsigned stage = 0; stage < kAhead; ++stage) copies_of_b_.start(offset_of(stage));
        wait_for_previous_kernel();
        let_next_kernel_start();  // only now, so that no more than one is ahead of any
        for (unsigned stage = 0; stage < kAhead; ++stage) {
            copies_of_a_.start(offset_of(stage));
            __pipeline_commit();
        }
        typename Epilogue::Loaded loaded[kElements];
        load(loaded);
        WarpPart<kKind, kOrderA, kOrderB> part;
        FactorSums<Epilogue, T, kOrderA> sums_of_a;
        add_stages(part, sums_of_a);
        __pipeline_wait_prior(0);
        __syncthreads();  // what follows takes the stages' place
        DenseSums& sums = *dynamic_shared<DenseSums>();
        part.store(sums);
        if (column_tile_ == 0) {
            sums_of_a.finish(epilogue_, cells_.first_row, cells_.result.rows, sums.of_a);
        }
        __syncthreads();
        float terms[kElements] = {};
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            if (cells_.is_inside(i)) terms[i] = finish(i, sums, loaded[i]);
        }
        if constexpr (Epilogue::kRowSums) sum_rows(terms, sums);
    }

  private:
    static constexpr unsigned kAhead = kDenseStages - 1;

    // Bytes from the first stage's place to that of another.
    static __device__ unsigned offset_of(unsigned stage) {
        return stage % kDenseStages * static_cast<unsigned>(kStage * sizeof(T));
    }
    __device__ void load(typename Epilogue::Loaded (&loaded)[kElements]) const {
        if constexpr (Epilogue::kLoadsTogether) {
            epilogue_.load(cells_, loaded);
        } else {
#pragma unroll
            for (int i = 0; i < kElements; ++i) {
                if (cells_.is_inside(i)) loaded[i] = epilogue_.load(cells_.row(i), cells_.column());
            }
        }
    }
    __device__ void add_stages(WarpPart<kKind, kOrderA, kOrderB>& part,
                               FactorSums<Epilogue, T, kOrderA>& sums_of_a) {
        const auto stages = static_cast<unsigned>((depth_ + LayoutA::kDepth - 1) / LayoutA::kDepth);
        for (unsigned stage = 0; stage < stages; ++stage) {
            __pipeline_wait_prior(kAhead - 1);
            __syncthreads();  // the stage is there for all, and the one before it read by all
            const unsigned next = offset_of(stage + kAhead);
            copies_of_a_.start(next);  // zeros, if there is no such stage
            copies_of_b_.start(next);
            __pipeline_commit();
            const T* const of_a = dynamic_shared<T>() + stage % kDenseStages * kStage;
            part.add(of_a, of_a + LayoutA::kElements);
            if (column_tile_ == 0) sums_of_a.add(of_a);
        }
    }
    // Returns the term of the row's sum.
    __device__ float finish(int i, const DenseSums& sums,
                            const typename Epilogue::Loaded& loaded) const {
        float both[Epilogue::kSums];
#pragma unroll
        for (int k = 0; k < Epilogue::kSums; ++k) {
            const int row = cells_.row(i) - cells_.first_row;
            const int column = cells_.column() - cells_.first_column + k * Cells::kColumns;
            both[k] = sums.tile[0][row][column] + sums.tile[1][row][column];
        }
        if constexpr (Epilogue::kRowSums) {
            return epilogue_.apply(cells_.row(i), cells_.column(), both, loaded);
        } else {
            epilogue_.apply(cells_.row(i), cells_.column(), both, loaded);
            return 0;
        }
    }
    __device__ float* row_slot(int row, unsigned tile) const {
        return epilogue_.scratch.partials + static_cast<std::size_t>(row) * column_tiles_ + tile;
    }
    // The sums of the tile's rows go to their slots, or where they belong if the tile has all
    // columns; the last block of a row of tiles adds the slots up.
    __device__ void sum_rows(const float (&terms)[kElements], DenseSums& sums) const {
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            float sum = terms[i];
#pragma unroll
            for (int distance = Cells::kColumns / 2; distance > 0; distance /= 2) {
                sum += __shfl_xor_sync(kFullWarp, sum, distance);
            }
            const int row = cells_.row(i);
            if (threadIdx.x % Cells::kColumns != 0 || row >= cells_.result.rows) continue;
            if (column_tiles_ == 1) {
                epilogue_.store_row(row, sum);
            } else {
                *row_slot(row, column_tile_) = sum;
            }
        }
        if (column_tiles_ == 1) return;
        __syncthreads();  // the block's slots are written, before thread 0 says so
        if (threadIdx.x == 0) {
            __threadfence();
            sums.is_last =
                take_last_ticket(epilogue_.scratch.tickets + row_tile_, column_tiles_) ? 1U : 0U;
            __threadfence();  // and the others' slots are seen, before the block reads them
        }
        __syncthreads();
        if (sums.is_last != 0) add_slots();
    }
    __device__ void add_slots() const {
        constexpr int kWarps = kDenseThreads / static_cast<int>(kWarpSize);
        for (int i = static_cast<int>(threadIdx.x / kWarpSize); i < kDenseTile; i += kWarps) {
            const int row = cells_.first_row + i;
            if (row >= cells_.result.rows) return;  // the whole warp
            double sum = 0;
            for (unsigned tile = threadIdx.x % kWarpSize; tile < column_tiles_; tile += kWarpSize) {
                sum += *row_slot(row, tile);
            }
            sum = warp_sum(sum);
            if (threadIdx.x % kWarpSize == 0) epilogue_.store_row(row, sum);
        }
    }

    const Epilogue& epilogue_;
    unsigned column_tiles_;
    unsigned row_tile_;
    unsigned column_tile_;
    Cells cells_;
    int depth_;
    Copier<kOrderA, false> copies_of_a_;
    Copier<kOrderB, Epilogue::kSums == 2> copies_of_b_;
};

template <FactorKind kKind, Order kOrderA, Order kOrderB, class Epilogue, bool kIsWide>
__global__ void __launch_bounds__(kDenseThreads, 2)
    dense_kernel(const FactorMatrix<FactorElement<kKind>> a,
                 const FactorMatrix<FactorElement<kKind>> b, const DenseResult result,
                 const Epilogue epilogue) {
    DenseBlock<kKind, kOrderA, kOrderB, Epilogue, kIsWide>(a, b, result, epilogue).run();
}

}  // namespace vae::kernels
