#include "kernels/arena.h"

#include <algorithm>
#include <limits>

#include "kernels/check.h"

namespace vae::kernels {
namespace {

constexpr std::size_t kLeastPiece = 1024;  // four elements for each thread of a block of 256
constexpr std::size_t kMostPieces = 8192;  // one block adds up a number for each

std::size_t pieces_of(std::size_t size, std::size_t piece) {
    return (size + piece - 1) / piece;
}

std::size_t piece_size(std::span<const ArenaTensor> tensors) {
    std::size_t piece = kLeastPiece;
    const auto count = [&] {
        std::size_t pieces = 0;
        for (const ArenaTensor& tensor : tensors) pieces += pieces_of(tensor.size, piece);
        return pieces;
    };
    // A piece as large as all elements ends it: then there are as few pieces as can be.
    const std::size_t largest = std::numeric_limits<unsigned>::max();
    while (count() > kMostPieces && piece < largest) piece *= 2;
    return piece;
}

}  // namespace

ArenaPieces cut_arena(std::span<const ArenaTensor> tensors) {
    for (const ArenaTensor& tensor : tensors) {
        constexpr std::size_t kLargest = std::numeric_limits<unsigned>::max();
        require(tensor.offset <= kLargest && tensor.size <= kLargest - tensor.offset, "cut_arena",
                "a tensor ends beyond 2^32 elements");
    }
    const std::size_t piece = piece_size(tensors);
    ArenaPieces result;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
        const auto [offset, size] = tensors[t];
        result.first_piece.push_back(static_cast<unsigned>(result.pieces.size()));
        for (std::size_t begin = 0; begin < size; begin += piece) {
            result.pieces.push_back({static_cast<unsigned>(t),
                                     static_cast<unsigned>(offset + begin),
                                     static_cast<unsigned>(std::min(piece, size - begin))});
        }
    }
    result.first_piece.push_back(static_cast<unsigned>(result.pieces.size()));
    return result;
}

}  // namespace vae::kernels
