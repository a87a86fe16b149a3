// The matrix products of a training step of a workload.
#pragma once

#include <string>
#include <vector>

#include "bench/workloads.h"
#include "host/config.h"
#include "host/gpu/matmul_product.h"

namespace vae::bench {

struct StepProduct {
    std::string name;  // encoder.0/forward
    gpu::MatmulProduct product;
};

// In the order of the layers, each layer's together, as a run in this precision, which is not
// automatic, computes them. A shape may come more than once.
std::vector<StepProduct> products_of(const Workload& workload, Precision precision);

}  // namespace vae::bench
