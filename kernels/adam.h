// Adam (Kingma & Ba 2015, algorithm 1) over the whole parameter arena.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace vae::kernels {

// Computed on the host in double.
struct AdamStep {
    double beta1 = 0.9;  // double, so that 1 − beta is right to float rounding
    double beta2 = 0.999;
    float epsilon = 1e-8f;
    float step_size = 0;                 // learning rate / (1 − beta1^t)
    float inverse_sqrt_correction2 = 1;  // 1 / sqrt(1 − beta2^t)
};

// Computes  m = beta1·m + (1 − beta1)·g; v = beta2·v + (1 − beta2)·g²
//           p −= step_size·m / (sqrt(v)·inverse_sqrt_correction2 + epsilon)
// Shapes    all [size]; parameters, m, v are updated in place
void adam(const AdamStep& step, const float* gradients, std::size_t size, float* parameters,
          float* m, float* v, cudaStream_t stream);

}  // namespace vae::kernels
