// Memory for sums that cross blocks: each block leaves a partial sum in its own slot, and the last
// block of a row or a column to finish (an integer ticket tells) adds the slots in a fixed order.
// So sums are deterministic without float atomics and without a second launch.
#pragma once

#include <cstddef>

namespace vae::kernels {

// Owned by the caller, one per concurrent stream. tickets are zero before a launch and left zero
// after it; partials hold nothing between launches.
struct Scratch {
    float* partials = nullptr;
    std::size_t partials_size = 0;  // elements
    unsigned* tickets = nullptr;
    std::size_t tickets_size = 0;
};

struct ScratchSize {
    std::size_t partials = 0;
    std::size_t tickets = 0;
};

// What any kernel of kernels/tile.cuh needs for an array of rows × cols with so many sums of each
// column. Monotone in all, so that the size of the largest array serves all. Throws
// std::invalid_argument if one is negative.
ScratchSize scratch_size(int rows, int cols, int column_sums = 1);

}  // namespace vae::kernels
