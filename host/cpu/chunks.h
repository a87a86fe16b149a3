// How a batch is cut for its column sums: what follows is the same for any number of threads.
#pragma once

#include <cstddef>

namespace vae::cpu {

// Rows that one thread handles together, leaving one row of partial column sums.
inline constexpr std::size_t kChunkRows = 8;

constexpr std::size_t chunk_count(std::size_t rows) {
    return (rows + kChunkRows - 1) / kChunkRows;
}

}  // namespace vae::cpu
