// Where the VampPrior's pseudo-inputs start: at examples of the data.
#pragma once

#include <cstdint>
#include <span>

#include "host/dataset.h"
#include "host/parameters.h"

namespace vae {

// Sets prior.pseudo_inputs, if there are any, to training examples in an order of shuffled_rows
// that no epoch has, no two the same while there are enough (else they are gone through again),
// each with noise N(0, 0.01²) at (seed, initialization, 1, component): so no two components are the
// same, and each learns for itself. Grey pixels stay grey, whatever data.binarize makes of the
// examples.
void set_pseudo_inputs(const ParameterLayout& layout, const Dataset& data, std::uint64_t seed,
                       std::span<float> parameters);

}  // namespace vae
