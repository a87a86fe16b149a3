// How an array [rows, cols] is cut into tiles, one a block: see kernels/tile.cuh. Host side only.
#pragma once

#include <cstddef>

namespace vae::kernels {

inline constexpr unsigned kTileWarps = 8;
inline constexpr unsigned kTileThreads = kTileWarps * 32;
inline constexpr unsigned kWideColumns = 4 * 32;  // of a tile whose threads take 4 columns each
inline constexpr unsigned kNarrowColumns = 32;    // of a tile whose threads take 1 column each
// A warp takes several rows of its tile once that still leaves this many tiles: enough to fill the
// largest GPU several times over, so that small arrays spread out and large ones save partials.
inline constexpr std::size_t kEnoughTiles = 1024;
inline constexpr unsigned kMostRowsPerWarp = 8;

struct TileGrid {
    unsigned rows = 0;
    unsigned cols = 0;
    unsigned row_tiles = 0;
    unsigned col_tiles = 0;
    unsigned rows_per_warp = 1;
};

constexpr std::size_t tiles_of(std::size_t size, std::size_t tile) {
    return (size + tile - 1) / tile;
}

constexpr TileGrid make_tile_grid(int rows, int cols, unsigned tile_columns) {
    TileGrid grid;
    grid.rows = static_cast<unsigned>(rows);
    grid.cols = static_cast<unsigned>(cols);
    grid.col_tiles = static_cast<unsigned>(tiles_of(grid.cols, tile_columns));
    grid.rows_per_warp = kMostRowsPerWarp;
    while (grid.rows_per_warp > 1 &&
           tiles_of(grid.rows, kTileWarps * grid.rows_per_warp) * grid.col_tiles < kEnoughTiles) {
        grid.rows_per_warp /= 2;
    }
    grid.row_tiles = static_cast<unsigned>(tiles_of(grid.rows, kTileWarps * grid.rows_per_warp));
    return grid;
}

}  // namespace vae::kernels
