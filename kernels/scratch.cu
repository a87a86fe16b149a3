#include "kernels/scratch.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/tile_grid.h"

namespace vae::kernels {

// make_tile_grid's own numbers are not monotone: more rows can mean larger tiles and so fewer. A
// tile is kept small only while there are fewer than kEnoughTiles of the next larger, so there are
// never more than 2·kEnoughTiles of them, unless they are the largest.
ScratchSize scratch_size(int rows, int cols, int column_sums) {
    require_shape(rows, cols, "scratch_size");
    require(column_sums >= 0, "scratch_size", "column_sums must not be negative");
    if (rows == 0 || cols == 0) return {};
    const auto height = static_cast<std::size_t>(rows);
    const auto width = static_cast<std::size_t>(cols);
    const std::size_t wide_tiles = tiles_of(width, kWideColumns);
    const std::size_t narrow_tiles = tiles_of(width, kNarrowColumns);
    const std::size_t most_row_tiles = tiles_of(height, kTileWarps);
    const std::size_t fewest_row_tiles = tiles_of(height, kTileWarps * kMostRowsPerWarp);
    const std::size_t column_slots =
        std::min(most_row_tiles * width,
                 kWideColumns * std::max(2 * kEnoughTiles, fewest_row_tiles * wide_tiles));
    return {column_slots * static_cast<std::size_t>(column_sums) + height * narrow_tiles,
            most_row_tiles + narrow_tiles};
}

}  // namespace vae::kernels
