// How the device's functions round: what tests ask for (emulation.h) and kernels are given.
#pragma once

#include <cstdint>

namespace emulation {

enum class Rounding { host, random, up, down };

struct FunctionRounding {
    Rounding kind = Rounding::host;
    std::uint64_t seed = 0;

    bool operator==(const FunctionRounding&) const = default;
};

// Outside of the runtime's state, for every element of a kernel looks here.
inline constinit FunctionRounding function_rounding;

}  // namespace emulation
