// Measures which of cuBLASLt's algorithms is the fastest for each product of a network.
#pragma once

#include <optional>
#include <vector>

#include "host/cuda_module.h"
#include "host/gpu/matmul.h"

namespace vae::gpu {

// Measures all candidates of each product on the current device, puts the fastest into the cache's
// file (matmul_cache.h) and reports them; of a product with an epilogue the fastest of those that
// compute it in the same kernel, where cuBLASLt's first proposal is one. Takes a second or
// so a product, of large ones several. Throws RunError when the device is full or fails, or the
// file cannot be written.
TuningReport tune_products(const std::vector<MatmulProduct>& products);

// The products of a training step on a full batch and of one on what is left at an epoch's end, and
// of the evaluations of a run, with the algorithms that are kept; where train.plan is "auto", of
// the plan that counting finds.
std::vector<MatmulProduct> products_of_run(const Config& config, const ParameterLayout& layout,
                                           const Splits& splits);

}  // namespace vae::gpu
