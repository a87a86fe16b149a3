// Gaussian likelihood with one fixed sigma: loss, gradient and bias gradient in one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  m = product + bias; recon[r] = Σ_c ½((x − m)/sigma)² + log sigma + ½ log 2π, in nats
// Shapes    one output a pixel; recon[rows]; any rows, pixels >= 0; sigma > 0
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  float within a tile (at most 4 terms a lane, then a fixed tree over the warp), double
//           across tiles and for the constant. NaN in product, bias or x gives NaN in its row.
// Cost      8 bytes and 5 flops an element; bound by memory bandwidth
// Launch    tiles of 256 threads, 8 bytes of shared memory, see kernels/tile.cuh. Throws
//           std::invalid_argument if scratch is too small or sigma is not positive and finite.
void gaussian_forward(const LikelihoodInput& in, double sigma, float* recon, const Scratch& scratch,
                      cudaStream_t stream);

// Computes  recon as above; d_product = scale·row_weight[r]·(m − x)/sigma²;
//           d_bias[c] = Σ_r d_product[r, c]
// Shapes    as above
// Writes    overwrites recon, d_product, d_bias; d_product may be product, nothing else may
//           overlap. recon is zero if pixels is 0, d_bias is zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a tile (at most 64), double across tiles.
// Cost      12 bytes and 8 flops an element; bound by memory bandwidth
// Launch    as above, with 12 KiB of shared memory (3 if an array is not aligned to 16 bytes or
//           pixels % 4 is not 0)
void gaussian_forward_backward(const LikelihoodInput& in, double sigma,
                               const LikelihoodGradient& gradient, float* recon,
                               const Scratch& scratch, cudaStream_t stream);

// Computes  out = product + bias
// Shapes    product, out [rows, cols]; bias[cols]; any rows, cols >= 0
// Writes    overwrites out, which may be product
// Numerics  one rounding
// Cost      8 bytes and 1 flop an element; bound by memory bandwidth
// Launch    tiles, no shared memory
void add_bias(const float* product, const float* bias, int rows, int cols, float* out,
              cudaStream_t stream);

}  // namespace vae::kernels
