// How an arena of tensors is shared out among blocks. Each block works on a piece of one tensor, so
// that what belongs to a tensor (its norm, its factor) is the same for the whole block, and what
// lies between tensors (padding) belongs to no block.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace vae::kernels {

// Elements [offset, offset + size) of an arena.
struct ArenaTensor {
    std::size_t offset = 0;
    std::size_t size = 0;
};

struct ArenaPiece {
    unsigned tensor = 0;  // its place in the list of tensors
    unsigned offset = 0;  // of the piece, in the arena
    unsigned size = 0;
};

// Pieces in the order of tensors and, within one, of elements.
struct ArenaPieces {
    std::vector<ArenaPiece> pieces;
    std::vector<unsigned> first_piece;  // of each tensor, and at the end the number of pieces
};

// Pieces of 1024 elements or, where that would make more than 8192 of them, of the least power of
// two that does not; a tensor's last piece may be smaller. A tensor of no elements has none. Throws
// std::invalid_argument when a tensor ends beyond 2^32 elements.
ArenaPieces cut_arena(std::span<const ArenaTensor> tensors);

// ArenaPieces on the device.
struct ArenaTable {
    const ArenaPiece* pieces = nullptr;     // [piece_count]
    const unsigned* first_piece = nullptr;  // [tensor_count + 1]
    unsigned piece_count = 0;
    unsigned tensor_count = 0;
};

}  // namespace vae::kernels
