// What to change when training does not fit on the device.
#pragma once

#include <string>

#include "host/gpu/cuda_backend.h"

namespace vae::gpu {

// "train.batch = 512 would fit, and so would train.precision = \"bf16\"": of what is free now, for
// the end of an error. Each is the only change. Of batches the largest that is the configuration's
// by halving, of micro_batches the fewest by doubling.
std::string what_fits(const Config& config, const ParameterLayout& layout,
                      const SelectedDevice& device);

}  // namespace vae::gpu
