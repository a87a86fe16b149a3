// Where a kernel's random numbers come from: see kernels/philox.cuh for the device side.
// host/noise.h has the same address format, written independently; a test holds the two together.
#pragma once

#include <cstdint>

#include "kernels/step_state.h"

namespace vae::kernels {

// All of an address but the example and the element, which a kernel knows itself.
struct NoiseStream {
    std::uint64_t seed = 0;
    std::uint32_t purpose = 0;  // < 2^6
    std::uint32_t step = 0;
    std::uint32_t sample = 0;          // < 2^24
    const StepState* state = nullptr;  // device; if there is one, it has the step
};

}  // namespace vae::kernels
