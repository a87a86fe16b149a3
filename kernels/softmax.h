// Categorical likelihood: a softmax over the `classes` outputs of each group; loss, gradient and
// bias gradient from one read of the outputs. Of discrete pixels a group is a pixel and
// x[·, pixels] = k/(classes − 1); of one-hot data a group is `classes` neighbouring values, and x
// is as wide as the product.
#pragma once

#include <cuda_runtime.h>

#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::kernels {

inline constexpr int kMostClasses = 1024;  // a warp holds a group in its registers

struct SoftmaxSettings {
    int classes = 0;  // 2 … kMostClasses
    bool is_onehot = false;
};

// Groups in a row, and outputs: groups·classes.
constexpr int softmax_groups(const SoftmaxSettings& settings, int pixels) {
    return settings.is_onehot ? pixels / settings.classes : pixels;
}

// What softmax_forward and softmax_forward_backward need; monotone in rows.
ScratchSize softmax_scratch_size(int rows, int pixels, const SoftmaxSettings& settings);

// Computes  l = product + bias; recon[r] = Σ_groups log Σ_k exp(l_k) − Σ_k t_k·l_k, in nats, with
//           t_k = 1 at the data's class and 0 elsewhere
// Shapes    outputs = groups·classes; one-hot pixels are a multiple of classes; recon[rows]; any
//           rows, pixels >= 0
// Writes    overwrites recon, with zero if pixels is 0; it may not overlap anything
// Numerics  the largest logit is taken off first. Within a group float, in a fixed tree; across
//           groups double. NaN in a group, its bias or its x gives NaN in its row.
// Cost      4 bytes an output and about 30 instructions, and 8 bytes a group for its sum; bound by
//           memory bandwidth
// Launch    a warp a group and row, blocks of 8 warps of one group, no shared memory; then a warp a
//           row. Throws std::invalid_argument if scratch is too small or classes is out of range.
void softmax_forward(const LikelihoodInput& in, const SoftmaxSettings& settings, float* recon,
                     const Scratch& scratch, cudaStream_t stream);

// Computes  recon as above; d_product = scale·row_weight[r]·(softmax(l)_k − t_k);
//           d_bias[c] = Σ_r d_product[r, c]
// Shapes    as above
// Writes    overwrites recon, d_product, d_bias; d_product may be product (not if bf16), nothing
//           else may overlap. recon is zero if pixels is 0, d_bias is zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a block (at most 64), double across.
// Cost      8 bytes an output (6 with a gradient in bf16) and about 45 instructions; bound as above
// Launch    as above, with up to 32 KiB of shared memory (32 bytes a class, rounded up to 32 times
//           a power of two); then a thread a column as well
void softmax_forward_backward(const LikelihoodInput& in, const SoftmaxSettings& settings,
                              const LikelihoodGradient& gradient, float* recon,
                              const Scratch& scratch, cudaStream_t stream);

// Computes  mean[rows, pixels]: the probabilities of one-hot data; Σ_k k/(classes − 1)·softmax(l)_k
//           of discrete pixels
// Shapes    as above; x and samples are not used
// Writes    overwrites mean, which may not overlap product
// Numerics  float, in a fixed tree. NaN in a group gives NaN in its means.
// Cost      4 bytes an output and about 45 instructions; bound by memory bandwidth
// Launch    a warp a group and row, no shared memory
void softmax_mean(const LikelihoodInput& in, const SoftmaxSettings& settings, float* mean,
                  cudaStream_t stream);

}  // namespace vae::kernels
