// Gaussian likelihood: loss, gradient and bias gradient in one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/gaussian_variance.h"
#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// One variance of all pixels, on the device, where a step may learn it.
// Computes  m = product + bias; recon[r] = Σ_c ½(x − m)²/variance + ½ log(2π·variance), in nats
// Shapes    one output a pixel; recon[rows]; variance: one; any rows, pixels >= 0
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  Σ (x − m)²: float within a tile (at most 4 terms a lane, then a fixed tree over the
//           warp), double across tiles and for what follows. NaN in product, bias, x or variance
//           gives NaN in its row.
// Cost      8 bytes and 4 flops an element; bound by memory bandwidth
// Launch    tiles of 256 threads, 8 bytes of shared memory, see kernels/tile.cuh. Throws
//           std::invalid_argument if scratch is too small.
void gaussian_forward(const LikelihoodInput& in, const GaussianVariance* variance, float* recon,
                      const Scratch& scratch, cudaStream_t stream);

// Computes  recon as above; d_product = scale·row_weight[r]·(m − x)/variance;
//           d_bias[c] = Σ_r d_product[r, c]; squares[r] = Σ_c (x − m)²
// Shapes    as above; squares[rows], or null
// Writes    overwrites recon, squares, d_product, d_bias; d_product may be product (not if bf16),
//           nothing else may overlap. recon is zero and squares is left if pixels is 0, d_bias is
//           zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a tile (at most 64), double across tiles.
// Cost      12 bytes (10 with a gradient in bf16) and 8 flops an element; bound by memory bandwidth
// Launch    as above, with 12 KiB of shared memory (3 if an array is not aligned to 4 elements or
//           pixels % 4 is not 0)
void gaussian_forward_backward(const LikelihoodInput& in, const GaussianVariance* variance,
                               const LikelihoodGradient& gradient, float* recon, float* squares,
                               const Scratch& scratch, cudaStream_t stream);

// Computes  squares[r] = Σ_c (x − m)²
// Shapes, Writes, Numerics, Cost, Launch   as gaussian_forward
void gaussian_squares(const LikelihoodInput& in, float* squares, const Scratch& scratch,
                      cudaStream_t stream);

// Bounds of a learned log-variance or log-scale: raw s stands for
// least + softplus(u − least), u = most − softplus(most − s) (Chua et al. 2018, appendix A.1).
struct LogBounds {
    float least = 0;
    float most = 0;
};

// A variance for each pixel.
// Computes  m and s = product + bias; v = bounded(s);
//           recon[r] = Σ_c ½(x − m)²·exp(−v) + ½ v + ½ log 2π, in nats
// Shapes    two outputs a pixel: product [rows, 2·pixels] has all m, then all s; recon[rows]
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  float within a tile, double across tiles and for the constant. v keeps the relative
//           accuracy of s inside the bounds. NaN comes through.
// Cost      12 bytes an element and about 100 instructions; bound by memory bandwidth or, where
//           memory is fast, by instructions
// Launch    tiles of 256 threads, 8 bytes of shared memory. Throws std::invalid_argument if scratch
//           is smaller than scratch_size(rows, pixels, 0).
void gaussian_pixel_forward(const LikelihoodInput& in, const LogBounds& bounds, float* recon,
                            const Scratch& scratch, cudaStream_t stream);

// Computes  recon as above; with w = scale·row_weight[r] and e = (m − x)·exp(−v)
//           d_product = w·e for m, w·½(1 − (m − x)·e)·dv/ds for s; d_bias its column sums
// Shapes    as above; d_product [rows, 2·pixels], d_bias [2·pixels]
// Writes    overwrites recon, d_product, d_bias; d_product may be product (not if bf16), nothing
//           else may overlap. recon is zero if pixels is 0, d_bias is zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a tile, double across tiles.
// Cost      20 bytes an element (16 with a gradient in bf16) and about 120 instructions; bound as
//           above
// Launch    as above, with 24 KiB of shared memory (6 if an array is not aligned to 4 elements or
//           pixels % 4 is not 0) and scratch_size(rows, pixels, 2)
void gaussian_pixel_forward_backward(const LikelihoodInput& in, const LogBounds& bounds,
                                     const LikelihoodGradient& gradient, float* recon,
                                     const Scratch& scratch, cudaStream_t stream);

// Computes  out = product + bias of the first cols columns of product's rows
// Shapes    product [rows, stride], out [rows, cols], bias[cols]; stride >= cols; any rows, cols
// Writes    overwrites out, which may be product if stride is cols
// Numerics  one rounding
// Cost      8 bytes and 1 flop an element; bound by memory bandwidth
// Launch    tiles, no shared memory
void add_bias(const float* product, const float* bias, int rows, int stride, int cols, float* out,
              cudaStream_t stream);

}  // namespace vae::kernels
