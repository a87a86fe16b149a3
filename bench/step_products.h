// The matrix products of a training step of a workload.
#pragma once

#include <string>
#include <vector>

#include "bench/workloads.h"
#include "host/config.h"
#include "host/gpu/matmul_product.h"

namespace vae::bench {

// A dense layer's product. Of bf16 operands, whether the result is bf16 too.
struct StepProduct {
    std::string name;  // encoder.0/forward
    gpu::MatmulKind kind = gpu::MatmulKind::forward;
    int rows = 0;
    int in = 0;
    int out = 0;
    bool is_narrow = false;
};

inline double flops_of(const StepProduct& of) {
    return 2.0 * of.rows * of.in * of.out;
}

// What a run in this precision, which is not automatic, computes it with.
gpu::MatmulTypes types_of(const StepProduct& product, Precision precision);

// In the order of the layers, each layer's together. A shape may come more than once.
std::vector<StepProduct> products_of(const Workload& workload);

}  // namespace vae::bench
