// Bias and activation behind a matrix product, and their backward.
#pragma once

#include <cuda_runtime.h>

#include "kernels/activation.h"
#include "kernels/reals.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  h = f(product + bias)
// Shapes    product[rows, cols], bias[cols], h[rows, cols]; any rows, cols >= 0; product and h are
//           stored alike
// Writes    overwrites h, which may be product
// Numerics  float, and rounded to bf16 where h is. Relative error in roundings (2^-24 each), at
//           most: relu 0, tanh 5, softplus and silu 10, gelu 12, and 4x² more at x = product + bias
//           < 0 rounded to float: far in this tail the rounding of Φ's argument counts x² times.
//           NaN in gives NaN out, relu too.
// Cost      8 bytes an element (bf16 4) and, about, 2 (relu), 25 (tanh, silu) or 70 (softplus,
//           gelu) instructions of PTX; bound by memory bandwidth, the last by instructions where
//           memory is fast
// Launch    tiles of 256 threads, see kernels/tile.cuh
void bias_activation_forward(Activation f, ConstReals product, const float* bias, int rows,
                             int cols, Reals h, cudaStream_t stream);

// Computes  d_pre = d_h · f'(product + bias),  d_bias[c] = Σ_r d_pre[r, c]
// Shapes    product, d_h, d_pre [rows, cols], stored alike; bias, d_bias [cols]; any rows,
//           cols >= 0. bias may be null for none: relu's output h, which is above 0 where product +
//           bias is, then serves in the place of product.
// Writes    overwrites d_pre and d_bias; d_pre may be d_h or product, nothing else may overlap.
//           d_bias is zero if rows is 0.
// Numerics  float; f' is computed again from product rather than read. Error of f' at most, in
//           roundings: relu 0, tanh 12, softplus 8·s, silu 12·s·(1 + |x|), with s = sigmoid x, gelu
//           (12, and 4x² more for x < 0)·Φ(x) + (10 + 2x²)·|x|·φ(x). Column sums: float over the
//           rows of a tile (at most 64), double across tiles, in a fixed order, of d_pre before it
//           is rounded to bf16. NaN comes through.
// Cost      12 bytes an element (bf16 6) and, about, 5 (relu), 30 (tanh, softplus, silu) or 95
//           (gelu) instructions of PTX; bound as above
// Launch    tiles, with 12 KiB of shared memory (3 if an array is not aligned to 4 elements or
//           cols % 4 is not 0). Throws std::invalid_argument if scratch is too small.
void bias_activation_backward(Activation f, ConstReals product, const float* bias, ConstReals d_h,
                              int rows, int cols, Reals d_pre, float* d_bias,
                              const Scratch& scratch, cudaStream_t stream);

}  // namespace vae::kernels
