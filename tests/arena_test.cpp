#include "kernels/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

namespace vae::test {
namespace {

using kernels::ArenaPieces;
using kernels::ArenaTensor;

// Every element of every tensor is in one piece, in order, and nothing else is.
void expect_whole(const std::vector<ArenaTensor>& tensors, std::size_t piece) {
    const ArenaPieces cut = kernels::cut_arena(tensors);
    ASSERT_EQ(cut.first_piece.size(), tensors.size() + 1);
    EXPECT_EQ(cut.first_piece.front(), 0U);
    EXPECT_EQ(cut.first_piece.back(), cut.pieces.size());
    for (std::size_t t = 0; t < tensors.size(); ++t) {
        std::size_t next = tensors[t].offset;
        for (unsigned p = cut.first_piece[t]; p < cut.first_piece[t + 1]; ++p) {
            EXPECT_EQ(cut.pieces.at(p).tensor, t);
            EXPECT_EQ(cut.pieces.at(p).offset, next);
            EXPECT_GE(cut.pieces.at(p).size, 1U);
            EXPECT_LE(cut.pieces.at(p).size, piece);
            next += cut.pieces.at(p).size;
        }
        EXPECT_EQ(next, tensors[t].offset + tensors[t].size);
    }
}

TEST(Arena, EveryElementIsInOnePiece) {
    expect_whole({}, 1024);
    expect_whole({{0, 0}}, 1024);
    expect_whole({{64, 1}, {128, 31}, {192, 0}, {192, 1023}, {1280, 1024}, {2304, 1025}}, 1024);
    expect_whole({{0, 784 * 400}, {313600, 400}}, 1024);
}

TEST(Arena, LargeArenasHaveLargePiecesAndNotTooMany) {
    expect_whole({{0, 8192 * 1024}}, 1024);
    EXPECT_EQ(kernels::cut_arena(std::vector<ArenaTensor>{{0, 8192 * 1024}}).pieces.size(), 8192U);
    expect_whole({{0, 8192 * 1024 + 1}}, 2048);
    EXPECT_EQ(kernels::cut_arena(std::vector<ArenaTensor>{{0, 8192 * 1024 + 1}}).pieces.size(),
              4097U);
    const std::size_t most = std::numeric_limits<std::uint32_t>::max();
    expect_whole({{0, most}}, 1024 * 1024);
}

TEST(Arena, MoreTensorsThanPiecesAreWanted) {
    std::vector<ArenaTensor> tensors;
    for (std::size_t i = 0; i < 9000; ++i) tensors.push_back({64 * i, 3});
    expect_whole(tensors, std::size_t{1} << 32);
}

TEST(Arena, WhatCannotBeAddressedIsRefused) {
    const std::size_t most = std::numeric_limits<std::uint32_t>::max();
    for (const ArenaTensor& tensor :
         std::vector<ArenaTensor>{{1, most}, {most + 1, 0}, {0, most + 1}}) {
        EXPECT_THROW(kernels::cut_arena(std::vector<ArenaTensor>{tensor}), std::invalid_argument);
    }
}

}  // namespace
}  // namespace vae::test
