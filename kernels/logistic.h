// Discretised logistic likelihood of pixels x = k/(levels − 1): the mass of a logistic distribution
// in the bin around x, the outermost bins taking the tails (Salimans et al. 2017, PixelCNN++).
#pragma once

#include <cuda_runtime.h>

#include "kernels/gaussian.h"
#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::kernels {

struct LogisticSettings {
    int levels = 256;
    LogBounds bounds;  // of the log-scale
};

// Computes  m and s = product + bias; scale = exp(bounded(s)); with h = 1/(2(levels − 1)),
//           a and b = (x − m ± h)/scale:  recon[r] = Σ_c −log(σ(a) − σ(b)), in nats;
//           −log σ(a) at x = 0 and −log σ(−b) at x = 1
// Shapes    two outputs a pixel: product [rows, 2·pixels] has all m, then all s; recon[rows]
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  σ(a) − σ(b) as σ(a)·σ(−b)·(1 − exp(b − a)), so nothing cancels however narrow or far
//           away the bin is. Float within a tile, double across tiles. NaN comes through.
// Cost      12 bytes an element and about 250 instructions; bound by memory bandwidth, or by
//           instructions where memory is fast
// Launch    tiles of 256 threads, 8 bytes of shared memory. Throws std::invalid_argument if scratch
//           is smaller than scratch_size(rows, pixels, 0), or levels is below 2.
void logistic_forward(const LikelihoodInput& in, const LogisticSettings& settings, float* recon,
                      const Scratch& scratch, cudaStream_t stream);

// Computes  recon as above; with w = scale·row_weight[r], u = (a − b) and a term left out at the
//           edge where it has no bound:  d_product = w·(σ(−a) − σ(b))/scale for m,
//           w·(u/expm1(u) + a·σ(−a) − b·σ(b))·d log scale/ds for s; d_bias its column sums
// Shapes    as above; d_product [rows, 2·pixels], d_bias [2·pixels]
// Writes    overwrites recon, d_product, d_bias; d_product may be product (not if bf16), nothing
//           else may overlap. recon is zero if pixels is 0, d_bias is zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a tile, double across tiles.
// Cost      20 bytes an element (16 with a gradient in bf16) and about 300 instructions; bound as
//           above
// Launch    as above, with 24 KiB of shared memory (6 if an array is not aligned to 4 elements or
//           pixels % 4 is not 0) and scratch_size(rows, pixels, 2)
void logistic_forward_backward(const LikelihoodInput& in, const LogisticSettings& settings,
                               const LikelihoodGradient& gradient, float* recon,
                               const Scratch& scratch, cudaStream_t stream);

// Computes  mean[r, c] = Σ_k σ((m − (k + ½)/(levels − 1))/scale)/(levels − 1) over k = 0 …
//           levels − 2, with m and scale as above: the mean of the levels under their masses
// Shapes    mean[rows, pixels]; x and samples are not used; any rows, pixels >= 0
// Writes    overwrites mean, which may not overlap product
// Numerics  each term float, their sum double. NaN comes through.
// Cost      12 bytes an element and about 30 instructions a level; bound by instructions
// Launch    tiles, no shared memory. Throws std::invalid_argument if levels is below 2.
void logistic_mean(const LikelihoodInput& in, const LogisticSettings& settings, float* mean,
                   cudaStream_t stream);

}  // namespace vae::kernels
