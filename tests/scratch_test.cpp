#include "kernels/scratch.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <stdexcept>
#include <tuple>

#include "kernels/tile_grid.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::make_tile_grid;
using kernels::scratch_size;
using kernels::ScratchSize;
using kernels::TileGrid;

constexpr int kMost = std::numeric_limits<int>::max();

void expect_enough(int rows, int cols) {
    const ScratchSize size = scratch_size(rows, cols);
    for (const unsigned columns : {kernels::kWideColumns, kernels::kNarrowColumns}) {
        const TileGrid grid = make_tile_grid(rows, cols, columns);
        ASSERT_GE(
            static_cast<std::size_t>(grid.row_tiles) * kernels::kTileWarps * grid.rows_per_warp,
            grid.rows);
        ASSERT_GE(static_cast<std::size_t>(grid.col_tiles) * columns, grid.cols);
        const std::size_t column_slots = static_cast<std::size_t>(grid.row_tiles) * grid.cols;
        const std::size_t row_slots = static_cast<std::size_t>(grid.col_tiles) * grid.rows;
        ASSERT_GE(size.partials, column_slots + row_slots) << rows << " x " << cols;
        ASSERT_GE(size.tickets, grid.row_tiles + grid.col_tiles) << rows << " x " << cols;
    }
}

TEST(ScratchSize, IsEnoughForEveryTiling) {
    for (int rows = 1; rows < 20000; rows += 1 + rows / 7) {
        for (int cols = 1; cols < 20000; cols += 1 + cols / 7) expect_enough(rows, cols);
    }
    for (const int other : {1, 5, 128, 4099}) {
        expect_enough(kMost, other);
        expect_enough(other, kMost);
    }
}

TEST(ScratchSize, GrowsWithRowsAndColumns) {
    ScratchSize last;
    for (const int cols : {1, 20, 33, 400, 784, 4096}) {
        last = {};
        for (int rows = 0; rows < 70000; rows += 1 + rows / 50) {
            const ScratchSize size = scratch_size(rows, cols);
            ASSERT_GE(size.partials, last.partials) << rows << " x " << cols;
            ASSERT_GE(size.tickets, last.tickets) << rows << " x " << cols;
            const ScratchSize wider = scratch_size(rows, cols + 1);
            ASSERT_GE(wider.partials, size.partials) << rows << " x " << cols;
            ASSERT_GE(wider.tickets, size.tickets) << rows << " x " << cols;
            last = size;
        }
    }
}

TEST(ScratchSize, IsModest) {
    // A tenth of the array for a large one; a megabyte and a bit at most for a small one.
    EXPECT_LT(scratch_size(8192, 4096).partials, 8192u * 4096u / 10);
    EXPECT_LT(scratch_size(128, 784).partials, 128u * 784u / 4);
    EXPECT_EQ(scratch_size(0, 784).partials, 0u);
    EXPECT_EQ(scratch_size(128, 0).tickets, 0u);
    EXPECT_THROW(scratch_size(-1, 1), std::invalid_argument);
}

TEST(ScratchSize, TilesFillAGpu) {
    const TileGrid small = make_tile_grid(128, 784, kernels::kWideColumns);
    EXPECT_EQ(small.row_tiles * small.col_tiles, 112u);
    const TileGrid large = make_tile_grid(8192, 4096, kernels::kWideColumns);
    EXPECT_EQ(large.rows_per_warp, kernels::kMostRowsPerWarp);
    EXPECT_EQ(large.row_tiles * large.col_tiles, 4096u);
}

TileGrid grid_of(const Shape& shape) {
    return make_tile_grid(shape.rows, shape.cols,
                          shape.cols % 4 == 0 ? kernels::kWideColumns : kernels::kNarrowColumns);
}

// What the tests of kernels count on.
TEST(ScratchSize, ShapesReachEveryKindOfGrid) {
    const TileGrid tall = grid_of(kEightRowsAWarp);
    EXPECT_EQ(tall.rows_per_warp, kernels::kMostRowsPerWarp);
    EXPECT_EQ(tall.row_tiles, 2u);
    EXPECT_EQ(tall.col_tiles, 512u);

    // Rows a warp, whether a thread has four columns, whether there are several rows and columns of
    // tiles.
    std::set<std::tuple<unsigned, bool, bool, bool>> reached;
    bool columns_of_tiles = false;
    for (const Shape& shape : launch_paths()) {
        const TileGrid grid = grid_of(shape);
        reached.emplace(grid.rows_per_warp, shape.cols % 4 == 0, grid.row_tiles > 1,
                        grid.col_tiles > 1);
        columns_of_tiles |= grid.col_tiles > 32;  // a lane of the last block adds several slots
    }
    for (const bool is_wide : {false, true}) {
        for (const unsigned rows : {1u, 2u, 4u, kernels::kMostRowsPerWarp}) {
            EXPECT_TRUE(reached.contains({rows, is_wide, true, false})) << rows << is_wide;
        }
        for (const unsigned rows : {1u, 2u}) {
            EXPECT_TRUE(reached.contains({rows, is_wide, true, true})) << rows << is_wide;
        }
        // A single row of many tiles always has the most.
        for (const unsigned rows : {1u, kernels::kMostRowsPerWarp}) {
            EXPECT_TRUE(reached.contains({rows, is_wide, false, true})) << rows << is_wide;
        }
        EXPECT_TRUE(reached.contains({1, is_wide, false, false})) << is_wide;
    }
    EXPECT_TRUE(columns_of_tiles);
}

}  // namespace
}  // namespace vae::test
