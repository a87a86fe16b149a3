// Which elements of a tile the fragment of a lane holds: what mma.h loads and stores by, and
// warp_matrices.cpp multiplies by.
#pragma once

#include "device_engine.h"

namespace emulation {

inline constexpr unsigned kTileSide = 16;  // rows of A and of the sum, columns of B and of the sum

// A tile, row by row, is 32 runs of as many elements, one for each lane. CUDA does not say which
// lane has which, and what a GPU gives it differs from ours. The runs are given out in another
// order for each use of a tile and each layout in memory, so that a kernel that relies on more than
// that fragments of one type have an element in one place is wrong here, too.
constexpr unsigned run_of(unsigned lane, unsigned order) {
    return lane ^ order;
}
constexpr unsigned order_of_a(bool by_rows) {
    return by_rows ? 5 : 18;
}
constexpr unsigned order_of_b(bool by_rows) {
    return by_rows ? 11 : 28;
}
inline constexpr unsigned kOrderOfSum = 22;

// The orders of both factors in the argument of a WarpCall.
constexpr unsigned orders_of(bool a_by_rows, bool b_by_rows) {
    return order_of_a(a_by_rows) * kWarpSize + order_of_b(b_by_rows);
}

}  // namespace emulation
