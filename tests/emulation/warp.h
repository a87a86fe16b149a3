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

// Whether all lanes of `mask` wait in the same operation with the same mask.
bool agree(const Warp& warp, unsigned mask);

// Fills the results of the lanes of `mask`, which agree.
void compute(Warp& warp, unsigned mask);

const char* name_of(WarpOperation operation);

}  // namespace emulation
