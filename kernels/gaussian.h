// Gaussian likelihood with one fixed sigma: loss, gradient and bias gradient in one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  m = product + bias; recon[r] = Σ_c ½((x − m)/sigma)² + log sigma + ½ log 2π
// Shapes    product, x [rows, cols]; bias[cols]; recon[rows]; sigma > 0
void gaussian_forward(const float* product, const float* bias, const float* x, int rows, int cols,
                      float sigma, float* recon, const Scratch& scratch, cudaStream_t stream);

// Computes  recon as above; d_product = scale·(m − x)/sigma²; d_bias[c] = Σ_r d_product[r, c]
// Writes    overwrites recon, d_product, d_bias; d_product may be product
void gaussian_forward_backward(const float* product, const float* bias, const float* x, int rows,
                               int cols, float sigma, float scale, float* recon, float* d_product,
                               float* d_bias, const Scratch& scratch, cudaStream_t stream);

// Computes  mean = product + bias; mean may be product
void gaussian_mean(const float* product, const float* bias, int rows, int cols, float* mean,
                   cudaStream_t stream);

}  // namespace vae::kernels
