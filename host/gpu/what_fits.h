// What to change when training does not fit on the device.
#pragma once

#include <string>

#include "host/gpu/cuda_backend.h"

namespace vae::gpu {

// "what would fit: train.micro_batches = 4, train.precision = \"bf16\", train.batch = 512, or
// --backend cpu": of what is free now, for the end of an error. Each is the only change. Of batches
// the largest that is the configuration's by halving, of micro_batches the fewest by doubling.
// Where nobody can tell, as the device fails at more than memory, it says less.
std::string what_fits(const Config& config, const ParameterLayout& layout,
                      const SelectedDevice& device);

}  // namespace vae::gpu
