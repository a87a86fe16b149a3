// Poisson likelihood of counts: loss, gradient and bias gradient in one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/likelihood.h"
#include "kernels/reals.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  l = product + bias; recon[r] = Σ_c exp(l) − x·l + log x!, in nats
// Shapes    one output a pixel, the log of the rate; recon[rows]; any rows, pixels >= 0
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  the three terms grow as x·log x and cancel, so what is computed is x·(e^t − 1 − t) with
//           t = l − log x, and x − x·log x + log x! by Stirling's series (exact up to 3): relative
//           to the loss a few roundings, besides |exp(l) − x|·|l| for the rounding of t. Float
//           within a tile, double across tiles. x must be a count. NaN comes through.
// Cost      8 bytes an element and about 100 instructions; bound by memory bandwidth, or by
//           instructions where memory is fast
// Launch    tiles of 256 threads, 8 bytes of shared memory, see kernels/tile.cuh. Throws
//           std::invalid_argument if scratch is too small.
void poisson_forward(const LikelihoodInput& in, float* recon, const Scratch& scratch,
                     cudaStream_t stream);

// Computes  recon as above; d_product = scale·row_weight[r]·(exp(l) − x);
//           d_bias[c] = Σ_r d_product[r, c]
// Shapes    as above
// Writes    overwrites recon, d_product, d_bias; d_product may be product (not if bf16), nothing
//           else may overlap. recon is zero if pixels is 0, d_bias is zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a tile (at most 64), double across tiles.
// Cost      12 bytes an element (10 with a gradient in bf16) and about 105 instructions; bound as
//           above
// Launch    as above, with 12 KiB of shared memory (3 if an array is not aligned to 4 elements or
//           pixels % 4 is not 0)
void poisson_forward_backward(const LikelihoodInput& in, const LikelihoodGradient& gradient,
                              float* recon, const Scratch& scratch, cudaStream_t stream);

// Computes  mean = exp(product + bias)
// Shapes    mean[rows, pixels]; x and samples are not used; any rows, pixels >= 0
// Writes    overwrites mean, which may be product
// Numerics  float; a few roundings, NaN in gives NaN out
// Cost      8 bytes an element and about 15 instructions; bound by memory bandwidth
// Launch    tiles, no shared memory
void poisson_mean(const LikelihoodInput& in, float* mean, cudaStream_t stream);

// Computes  out = log2(1 + x)/8, what the encoder sees of counts
// Shapes    x, out [rows, cols]; any rows, cols >= 0
// Writes    overwrites out, which may be x (not if bf16)
// Numerics  float, a few roundings, and rounded to bf16 where out is; NaN in gives NaN out
// Cost      8 bytes an element (6 if out is bf16) and about 20 instructions; bound by memory
//           bandwidth
// Launch    tiles, no shared memory
void log_counts(const float* x, int rows, int cols, Reals out, cudaStream_t stream);

}  // namespace vae::kernels
