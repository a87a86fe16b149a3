// Measures which of cuBLASLt's algorithms is the fastest for each product of a network.
#pragma once

#include <optional>
#include <vector>

#include "host/cuda_module.h"
#include "host/gpu/matmul.h"

namespace vae::gpu {

// Measures all candidates of each product on the current device, puts the fastest into the cache's
// file (matmul_cache.h) and reports them. Takes up to a second or so a product. Throws RunError
// when the device is full or fails, or the file cannot be written.
TuningReport tune_products(const std::vector<MatmulProduct>& products);

// The products of one training step on a full batch.
std::vector<MatmulProduct> products_of_step(const Config& config, const ParameterLayout& layout,
                                            const Splits& splits);

}  // namespace vae::gpu
