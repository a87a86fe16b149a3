// One pass over an array [rows, cols] that computes elements and, fused with it, their row sums and
// column sums. What is computed is an Op; this file is the traversal and the sums.
//
// A block owns a tile: kTileWarps · rows_per_warp rows by 32·V columns. A thread owns V neighboring
// columns (V is 4 where one access can take 4 elements, else 1), a warp owns every eighth row.
//   row sums     lanes' terms by shuffle, one float a row and tile; over tiles in double
//   column sums  a thread's rows in registers, the 8 warps through shared memory, one float a
//                column and tile; over tiles in double
// The partial sum of a tile goes to its own slot in Scratch. The block that takes the last ticket
// of a row (column) of tiles adds its slots in a fixed order: no float atomics, always the same
// bits.
//
// An Op is a struct passed to the kernel by value, with
//   static constexpr bool kRowSums;
//   static constexpr int kColumnSums;                 // of each column: 0, 1 or 2
//   template <int V> struct Columns;                  // what depends on the column only
//   template <int V> struct Loaded;                   // what is read of one row
//   Columns<V> columns<V>(unsigned col) const;        // columns col … col+V-1, all in the array
//   Loaded<V> load<V>(unsigned row, unsigned col, const Columns<V>&) const;
//   void apply<V>(unsigned row, unsigned col, const Columns<V>&, const Loaded<V>&,
//                 float& row_sum, float (&column_sums)[V]) const;   // stores, adds to the sums
//   void store_row(unsigned row, double sum) const;                 // if kRowSums
//   void store_column(unsigned col, double sum) const;              // if kColumnSums
// With two sums a column, column_sums has 2·V elements, all the first ones before the second ones,
// and store_column gets cols + col for a second one: as for an array of 2·cols columns.
// Several rows are loaded before the first is applied, for memory parallelism. So an output may
// be the input at the same element, and nothing more.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/scratch.h"
#include "kernels/shared_memory.cuh"
#include "kernels/tile_grid.h"

namespace vae::kernels {

static_assert(kTileThreads == kTileWarps * kWarpSize);
static_assert(kWideColumns == 4 * kWarpSize && kNarrowColumns == kWarpSize);
inline constexpr unsigned kMostColumnSums = 2;
static_assert(kTileThreads >= kMostColumnSums * kWideColumns, "a thread for each sum of a column");

// Column sums that a thread keeps: of an Op without any, those that nobody adds to.
template <int V, class Op>
inline constexpr int kThreadSums = V*(Op::kColumnSums > 1 ? 2 : 1);

// V neighboring elements, read or written in one access.
template <int V, class T = float>
struct alignas(V * sizeof(T)) Pack {
    T v[V];
};

template <int V, class T>
__device__ inline Pack<V, T> load_pack(const T* address) {
    return *reinterpret_cast<const Pack<V, T>*>(address);
}

template <int V, class T>
__device__ inline void store_pack(T* address, const Pack<V, T>& pack) {
    *reinterpret_cast<Pack<V, T>*>(address) = pack;
}

// Shared memory of a tile, 12 KiB for V = 4 and one sum a column: sums over the tile's warps, in
// float for the tile and in double for the slots, and two words that tell whether this block is a
// last one. Those alone where there are no column sums.
template <int V, int kColumnSums>
struct TileMemory {
    static constexpr unsigned kSums = kWarpSize * V * kColumnSums;
    double slot_sums[kTileWarps][kSums];
    float tile_sums[kTileWarps][kSums];
    unsigned last_of_rows;
    unsigned last_of_columns;
};
template <int V>
struct TileMemory<V, 0> {
    unsigned last_of_rows;
    unsigned last_of_columns;
};

// Where a block stands. Slots: [row_tiles, kColumnSums·cols] of columns, then [rows, col_tiles] of
// rows.
template <int V, int kColumnSums>
struct TilePosition {
    unsigned warp, lane, row_tile, col_tile, first_row, first_col;

    __device__ explicit TilePosition(const TileGrid& grid)
        : warp(threadIdx.x / kWarpSize),
          lane(threadIdx.x % kWarpSize),
          row_tile(blockIdx.x / grid.col_tiles),
          col_tile(blockIdx.x % grid.col_tiles),
          first_row(row_tile * kTileWarps * grid.rows_per_warp),
          first_col(col_tile * kWarpSize * V) {}

    // The column of sum i of the tile, i < 32·V·kColumnSums; of a second sum cols more.
    __device__ unsigned summed_column(const TileGrid& grid, unsigned i) const {
        return first_col + i % (kWarpSize * V) + i / (kWarpSize * V) * grid.cols;
    }
    __device__ bool has_sum(const TileGrid& grid, unsigned i) const {
        return i < kWarpSize * V * kColumnSums && first_col + i % (kWarpSize * V) < grid.cols;
    }
    __device__ float* column_slot(const TileGrid& grid, const Scratch& scratch, unsigned tile,
                                  unsigned column) const {
        return scratch.partials + static_cast<std::size_t>(tile) * kColumnSums * grid.cols + column;
    }
    __device__ float* row_slot(const TileGrid& grid, const Scratch& scratch, unsigned row,
                               unsigned tile) const {
        return scratch.partials +
               static_cast<std::size_t>(grid.row_tiles) * kColumnSums * grid.cols +
               static_cast<std::size_t>(row) * grid.col_tiles + tile;
    }
};

template <int V, class Op>
using TilePositionOf = TilePosition<V, static_cast<int>(Op::kColumnSums)>;

// The last block of a row of tiles: a warp a row, lanes over the slots.
template <int V, class Op>
__device__ inline void finish_rows(const Op& op, const TileGrid& grid, const Scratch& scratch,
                                   const TilePositionOf<V, Op>& at) {
    for (unsigned k = 0; k < grid.rows_per_warp; ++k) {
        const unsigned row = at.first_row + at.warp + k * kTileWarps;
        if (row >= grid.rows) break;
        double sum = 0;
        for (unsigned tile = at.lane; tile < grid.col_tiles; tile += kWarpSize) {
            sum += *at.row_slot(grid, scratch, row, tile);
        }
        sum = warp_sum(sum);
        if (at.lane == 0) op.store_row(row, sum);
    }
}

// The last block of a column of tiles: warps over the slots, lanes over the sums.
template <int V, class Op>
__device__ inline void finish_columns(const Op& op, const TileGrid& grid, const Scratch& scratch,
                                      const TilePositionOf<V, Op>& at,
                                      TileMemory<V, Op::kColumnSums>& memory) {
    constexpr int kSums = V * Op::kColumnSums;
    double sums[kSums] = {};
    for (unsigned tile = at.warp; tile < grid.row_tiles; tile += kTileWarps) {
#pragma unroll
        for (unsigned i = 0; i < kSums; ++i) {
            const unsigned sum = i * kWarpSize + at.lane;
            if (!at.has_sum(grid, sum)) continue;
            sums[i] += *at.column_slot(grid, scratch, tile, at.summed_column(grid, sum));
        }
    }
#pragma unroll
    for (unsigned i = 0; i < kSums; ++i) {
        memory.slot_sums[at.warp][i * kWarpSize + at.lane] = sums[i];
    }
    __syncthreads();
    if (!at.has_sum(grid, threadIdx.x)) return;
    double total = 0;
    for (unsigned warp = 0; warp < kTileWarps; ++warp) {
        total += memory.slot_sums[warp][threadIdx.x];
    }
    op.store_column(at.summed_column(grid, threadIdx.x), total);
}

// Computes the tile; leaves each thread's column sums in column_sums and the tile's row sums in
// their slots, or where they belong if the tile has all columns.
template <int V, class Op>
__device__ inline void compute_tile(const Op& op, const TileGrid& grid, const Scratch& scratch,
                                    const TilePositionOf<V, Op>& at,
                                    float (&column_sums)[kThreadSums<V, Op>]) {
    constexpr unsigned kAtOnce = 4;  // rows in flight
    const unsigned col = at.first_col + at.lane * V;
    const bool in_columns = col < grid.cols;
    typename Op::template Columns<V> columns = {};
    if (in_columns) columns = op.template columns<V>(col);
    for (unsigned k = 0; k < grid.rows_per_warp; k += kAtOnce) {
        typename Op::template Loaded<V> loaded[kAtOnce] = {};
#pragma unroll
        for (unsigned u = 0; u < kAtOnce; ++u) {
            const unsigned row = at.first_row + at.warp + (k + u) * kTileWarps;
            const bool in_rows = k + u < grid.rows_per_warp && row < grid.rows;
            if (in_rows && in_columns) loaded[u] = op.template load<V>(row, col, columns);
        }
#pragma unroll
        for (unsigned u = 0; u < kAtOnce; ++u) {
            const unsigned row = at.first_row + at.warp + (k + u) * kTileWarps;
            if (k + u >= grid.rows_per_warp || row >= grid.rows) break;  // same for the whole warp
            float row_sum = 0;
            if (in_columns) {
                op.template apply<V>(row, col, columns, loaded[u], row_sum, column_sums);
            }
            if constexpr (Op::kRowSums) {
                row_sum = warp_sum(row_sum);
                if (at.lane == 0 && grid.col_tiles == 1) op.store_row(row, row_sum);
                if (at.lane == 0 && grid.col_tiles > 1) {
                    *at.row_slot(grid, scratch, row, at.col_tile) = row_sum;
                }
            }
        }
    }
}

// The tile's column sums go to their slots, or where they belong if the tile has all rows.
template <int V, class Op>
__device__ inline void sum_tile_columns(const Op& op, const TileGrid& grid, const Scratch& scratch,
                                        const TilePositionOf<V, Op>& at,
                                        const float (&column_sums)[kThreadSums<V, Op>],
                                        TileMemory<V, Op::kColumnSums>& memory) {
#pragma unroll
    for (int k = 0; k < Op::kColumnSums; ++k) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            memory.tile_sums[at.warp][k * kWarpSize * V + at.lane * V + i] = column_sums[k * V + i];
        }
    }
    __syncthreads();
    if (!at.has_sum(grid, threadIdx.x)) return;
    float sum = 0;
    for (unsigned warp = 0; warp < kTileWarps; ++warp) sum += memory.tile_sums[warp][threadIdx.x];
    const unsigned column = at.summed_column(grid, threadIdx.x);
    if (grid.row_tiles == 1) {
        op.store_column(column, sum);
    } else {
        *at.column_slot(grid, scratch, at.row_tile, column) = sum;
    }
}

// After the block's slots are written: adds up a row or a column of tiles if no other block will.
template <int V, class Op>
__device__ inline void finish_tiles(const Op& op, const TileGrid& grid, const Scratch& scratch,
                                    const TilePositionOf<V, Op>& at,
                                    TileMemory<V, Op::kColumnSums>& memory) {
    const bool split_rows = Op::kRowSums && grid.col_tiles > 1;
    const bool split_columns = Op::kColumnSums > 0 && grid.row_tiles > 1;
    if (!split_rows && !split_columns) return;
    __syncthreads();  // the block's slots are written, before thread 0 says so
    if (threadIdx.x == 0) {
        unsigned* const tickets = scratch.tickets;
        __threadfence();
        memory.last_of_rows = split_rows && take_last_ticket(tickets + at.row_tile, grid.col_tiles);
        memory.last_of_columns =
            split_columns &&
            take_last_ticket(tickets + grid.row_tiles + at.col_tile, grid.row_tiles);
        __threadfence();  // and the others' slots are seen, before the block reads them
    }
    __syncthreads();
    if constexpr (Op::kRowSums) {
        if (memory.last_of_rows != 0) finish_rows<V>(op, grid, scratch, at);
    }
    if constexpr (Op::kColumnSums > 0) {
        if (memory.last_of_columns != 0) finish_columns<V>(op, grid, scratch, at, memory);
    }
}

// Blocks that a multiprocessor must have room for, which bounds the registers of a thread: 64 with
// 4 of them. Left to itself ptxas takes fewer than some kernels need, and spills. An Op that needs
// more says so by a kResidentBlocks of its own.
template <class Op>
inline constexpr unsigned kResidentBlocks = 4;
template <class Op>
requires(Op::kResidentBlocks >
         0) inline constexpr unsigned kResidentBlocks<Op> = Op::kResidentBlocks;

template <int V, class Op>
__global__ void __launch_bounds__(kTileThreads, kResidentBlocks<Op>)
    tile_kernel(const Op op, const TileGrid grid, const Scratch scratch) {
    const TilePositionOf<V, Op> at(grid);
    float column_sums[kThreadSums<V, Op>] = {};
    compute_tile<V>(op, grid, scratch, at, column_sums);
    if constexpr (Op::kRowSums || Op::kColumnSums > 0) {
        auto& memory = *dynamic_shared<TileMemory<V, Op::kColumnSums>>();
        if constexpr (Op::kColumnSums > 0) {
            sum_tile_columns<V>(op, grid, scratch, at, column_sums, memory);
        }
        finish_tiles<V>(op, grid, scratch, at, memory);
    }
}

template <int V, class Op>
void launch_tiles_of(const char* launcher, const Op& op, int rows, int cols, const Scratch& scratch,
                     cudaStream_t stream) {
    constexpr bool kSums = Op::kRowSums || Op::kColumnSums > 0;
    const TileGrid grid = make_tile_grid(rows, cols, kWarpSize * V);
    const std::size_t tiles = static_cast<std::size_t>(grid.row_tiles) * grid.col_tiles;
    require(tiles <= std::numeric_limits<int>::max(), launcher, "the array is too large");
    if constexpr (kSums) {
        const ScratchSize size = scratch_size(rows, cols, Op::kColumnSums);
        require(scratch.partials_size >= size.partials && scratch.tickets_size >= size.tickets,
                launcher, "scratch is smaller than scratch_size says");
    }
    const LaunchShape shape{dim3(static_cast<unsigned>(tiles)), dim3(kTileThreads),
                            kSums ? sizeof(TileMemory<V, Op::kColumnSums>) : 0};
    launch(launcher, tile_kernel<V, Op>, shape, stream, op, grid, scratch);
}

// Runs op over [rows, cols], both at least 1. wide: one access can take columns 4k … 4k+3.
template <class Op>
void launch_tiles(const char* launcher, const Op& op, int rows, int cols, bool wide,
                  const Scratch& scratch, cudaStream_t stream) {
    if (wide) {
        launch_tiles_of<4>(launcher, op, rows, cols, scratch, stream);
    } else {
        launch_tiles_of<1>(launcher, op, rows, cols, scratch, stream);
    }
}

}  // namespace vae::kernels
