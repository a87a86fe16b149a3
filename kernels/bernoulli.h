// Bernoulli likelihood on logits: loss, gradient and bias gradient in one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  l = product + bias; recon[r] = Σ_c max(l,0) − l·x + log1p(exp(−|l|))
// Shapes    product, x [rows, cols]; bias[cols]; recon[rows]
void bernoulli_forward(const float* product, const float* bias, const float* x, int rows, int cols,
                       float* recon, const Scratch& scratch, cudaStream_t stream);

// Computes  recon as above; d_product = scale·(sigmoid(l) − x); d_bias[c] = Σ_r d_product[r, c]
// Writes    overwrites recon, d_product, d_bias; d_product may be product
void bernoulli_forward_backward(const float* product, const float* bias, const float* x, int rows,
                                int cols, float scale, float* recon, float* d_product,
                                float* d_bias, const Scratch& scratch, cudaStream_t stream);

// Computes  mean = sigmoid(product + bias); mean may be product
void bernoulli_mean(const float* product, const float* bias, int rows, int cols, float* mean,
                    cudaStream_t stream);

}  // namespace vae::kernels
