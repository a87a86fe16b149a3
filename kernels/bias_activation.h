// Bias and activation behind a matrix product, and their backward.
#pragma once

#include <cuda_runtime.h>

#include "kernels/scratch.h"

namespace vae::kernels {

enum class Activation { relu, tanh, softplus, gelu, silu };

// Computes  h = f(product + bias)
// Shapes    product[rows, cols], bias[cols], h[rows, cols]; h may be product
void bias_activation_forward(Activation f, const float* product, const float* bias, int rows,
                             int cols, float* h, cudaStream_t stream);

// Computes  d_pre = d_h · f'(product + bias),  d_bias[c] = sum over rows of d_pre[r, c]
// Shapes    product, d_h, d_pre [rows, cols]; bias, d_bias [cols]; d_pre may be d_h
// Writes    d_pre and d_bias, overwriting; d_bias is zero when rows is 0
void bias_activation_backward(Activation f, const float* product, const float* bias,
                              const float* d_h, int rows, int cols, float* d_pre, float* d_bias,
                              const Scratch& scratch, cudaStream_t stream);

}  // namespace vae::kernels
