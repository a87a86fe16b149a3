// A gated layer behind the joint matrix product of its two linear maps, and its backward (Dauphin
// et al. 2017, section 2; with dense maps Norouzi et al. 2020).
#pragma once

#include <cuda_runtime.h>

#include "kernels/reals.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// The joint product of both maps, without bias: product[rows, 2·stride], the linear part in columns
// [0, cols), the gate in [stride, stride + cols); other columns are padding.
struct GatedView {
    ConstReals product;
    const float* bias = nullptr;       // [cols]
    const float* gate_bias = nullptr;  // [cols]
    int rows = 0;
    int cols = 0;
    int stride = 0;
};

// With a = linear part + bias, g = gate + gate_bias, s = sigmoid g:

// Computes  h = a·s
// Shapes    h[rows, cols], stored as product; any rows, cols >= 0; stride >= cols
// Writes    overwrites h, which must not overlap anything
// Numerics  float, and rounded to bf16 where h is; error at most 10 roundings (2^-24 each) of h for
//           the a and g that float gives. NaN in gives NaN out.
// Cost      12 bytes an element of h (bf16 6) and about 28 instructions of PTX; bound by memory
//           bandwidth
// Launch    tiles of 256 threads, see kernels/tile.cuh
void gated_forward(const GatedView& layer, Reals h, cudaStream_t stream);

// Computes  d_product: d_a = d_h·s in the linear part, d_g = d_h·a·s·(1 − s) in the gate's, zero in
//           the padding; d_bias[c] = Σ_r d_a[r, c], d_gate_bias[c] = Σ_r d_g[r, c]
// Shapes    d_h[rows, cols]; d_product[rows, 2·stride] laid out as product; both stored as it is;
//           d_bias, d_gate_bias [cols]; any rows, cols >= 0; stride >= cols, and even
// Writes    overwrites; d_product may be product, nothing else may overlap. The bias gradients are
//           zero if rows is 0.
// Numerics  float; s is computed again from product rather than read. s·(1 − s) is computed as
//           e/(1 + e)² with e = exp(−|g|), which loses no digits where s is near 1. Error at most
//           10 roundings of d_a and 20 of d_g. Column sums: float over the rows of a tile (at most
//           64), double across tiles, in a fixed order, of d_product before it is rounded to bf16.
//           NaN comes through.
// Cost      20 bytes an element of h (bf16 10) and about 33 instructions of PTX; bound by memory
//           bandwidth
// Launch    tiles of [rows, 2·stride], a thread for two columns of either part, with 12 KiB of
//           shared memory. Accesses are of two elements if all arrays are aligned to 4 and cols
//           is even, else of one. Throws std::invalid_argument if scratch is smaller than
//           scratch_size(rows, 2·stride).
void gated_backward(const GatedView& layer, ConstReals d_h, Reals d_product, float* d_bias,
                    float* d_gate_bias, const Scratch& scratch, cudaStream_t stream);

}  // namespace vae::kernels
