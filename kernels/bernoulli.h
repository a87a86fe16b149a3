// Bernoulli likelihood on logits: loss, gradient and bias gradient in one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  l = product + bias; recon[r] = Σ_c max(l,0) − l·x + log1p(exp(−|l|)), in nats
// Shapes    one output a pixel; recon[rows]; any rows, pixels >= 0
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  one exponential an element; float within a tile (at most 4 terms a lane, then a fixed
//           tree over the warp), double across tiles. Exact to rounding for every finite logit; x
//           need not be 0 or 1. NaN in product, bias or x gives NaN in its row.
// Cost      8 bytes an element and about 60 instructions; large arrays are bound by memory
//           bandwidth, or by instructions where memory is fast (HBM3e)
// Launch    tiles of 256 threads, 8 bytes of shared memory, see kernels/tile.cuh. Throws
//           std::invalid_argument if scratch is too small.
void bernoulli_forward(const LikelihoodInput& in, float* recon, const Scratch& scratch,
                       cudaStream_t stream);

// Computes  recon as above; d_product = scale·row_weight[r]·(sigmoid(l) − x);
//           d_bias[c] = Σ_r d_product[r, c]
// Shapes    as above
// Writes    overwrites recon, d_product, d_bias; d_product may be product (not if bf16), nothing
//           else may overlap. recon is zero if pixels is 0, d_bias is zero if rows is 0.
// Numerics  as above; the sigmoid shares the loss's exponential. Column sums: float over the rows
//           of a tile (at most 64), double across tiles.
// Cost      12 bytes an element (10 with a gradient in bf16) and about 75 instructions; bound as
//           above
// Launch    as above, with 12 KiB of shared memory (3 if an array is not aligned to 4 elements or
//           pixels % 4 is not 0)
void bernoulli_forward_backward(const LikelihoodInput& in, const LikelihoodGradient& gradient,
                                float* recon, const Scratch& scratch, cudaStream_t stream);

// Computes  mean = sigmoid(product + bias)
// Shapes    mean[rows, pixels]; x and samples are not used; any rows, pixels >= 0
// Writes    overwrites mean, which may be product
// Numerics  float; relative error of a few roundings for every logit, NaN in gives NaN out
// Cost      8 bytes an element and about 25 instructions; bound by memory bandwidth
// Launch    tiles, no shared memory
void bernoulli_mean(const LikelihoodInput& in, float* mean, cudaStream_t stream);

}  // namespace vae::kernels
