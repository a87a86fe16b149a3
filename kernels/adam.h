// Adam (Kingma & Ba 2015, algorithm 1) over the whole parameter arena.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace vae::kernels {

// Computed on the host in double. The betas stay double, so that 1 − beta is right to float
// rounding: 1 − 0.999f is wrong by 1.3e-5.
struct AdamStep {
    double beta1 = 0.9;
    double beta2 = 0.999;
    float epsilon = 1e-8f;
    float step_size = 0;                 // learning rate / (1 − beta1^t)
    float inverse_sqrt_correction2 = 1;  // 1 / sqrt(1 − beta2^t)
};

// Computes  m = beta1·m + (1 − beta1)·g; v = beta2·v + (1 − beta2)·g²
//           p −= step_size·m / (sqrt(v)·inverse_sqrt_correction2 + epsilon)
// Shapes    all [size]; any size, 0 included
// Writes    updates parameters, m and v in place; the four arrays must not overlap. Padding with
//           zero gradient and zero moments stays as it is. Throws std::invalid_argument unless
//           epsilon > 0, without which that would be 0/0.
// Numerics  float, IEEE division and square root; each element on its own, so always the same bits
// Cost      28 bytes and about 15 flops an element; bound by memory bandwidth
// Launch    a thread for 4 elements in blocks of 256, if all arrays are aligned to 16 bytes; a
//           second launch for the last 1 to 3 (or all, unaligned) elements, a thread for each
void adam(const AdamStep& step, const float* gradients, std::size_t size, float* parameters,
          float* m, float* v, cudaStream_t stream);

}  // namespace vae::kernels
