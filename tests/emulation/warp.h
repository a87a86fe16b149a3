// Results of warp-wide operations, computed for all lanes at once.
#pragma once

#include <array>
#include <cstdint>

#include "device_engine.h"

namespace emulation {

struct Warp {
    unsigned present = 0;  // lanes that the block has
    unsigned exited = 0;
    unsigned waiting = 0;  // lanes that wait in a call
    std::array<WarpCall, kWarpSize> calls;
    std::array<std::uint64_t, kWarpSize> results;
};

// Whether an operation takes all lanes of a warp, converged: at the same line.
constexpr bool is_of_whole_warp(WarpOperation operation) {
    return operation == WarpOperation::multiply_tf32 || operation == WarpOperation::multiply_bf16;
}

// Whether all lanes of `mask` wait in the same operation with the same mask.
bool agree(const Warp& warp, unsigned mask);

// Fills the results of the lanes of `mask`, which agree.
void compute(Warp& warp, unsigned mask);

// Adds the product of a warp's fragments to their sums. Factors are read as tensor cores read
// them: of a float in TF32 the bits that TF32 lacks are ignored. Products are exact; a sum of all
// of an instruction's and of the sum before is computed in double and then rounded to float toward
// zero, as tensor cores round (Fasi, Higham, Mikaitis & Pranesh 2021, "Numerical behavior of NVIDIA
// tensor cores"). Theirs may be worse: they also cut each addend to the places of the largest, and
// sum a deep tile in parts.
void multiply_matrices(const Warp& warp);

const char* name_of(WarpOperation operation);

}  // namespace emulation
