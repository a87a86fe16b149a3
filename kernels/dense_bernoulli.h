// The decoder's last product on tensor cores with the Bernoulli likelihood in it: logits never go
// to memory.
#pragma once

#include <cuda_runtime.h>

#include "kernels/dense.h"
#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  l = h·Wᵀ + bias; recon[r] and d_product as bernoulli_forward_backward does of l
// Shapes    h[rows, in], weight[out, in] and gradient.d_product[rows, out], stored alike, out being
//           the pixels; recon[rows]. Of `input` the product is not looked at, of `gradient` not
//           d_bias: dense_backward_weight has that.
// Writes    overwrites recon and d_product, which may not overlap anything
// Numerics  of the product as kernels/dense.h says; of the rest as bernoulli_forward_backward, but
//           recon in float over 32 pixels and in double over these sums
// Cost      2·rows·in·out flops, and about 130 instructions an element
// Launch    as dense_forward. Throws std::invalid_argument if scratch is smaller than
//           scratch_size(rows, out).
void dense_bernoulli(FloatFactors factors, const DenseSize& size, ConstReals h, ConstReals weight,
                     const LikelihoodInput& input, const LikelihoodGradient& gradient, float* recon,
                     const Scratch& scratch, const DenseStream& stream);

}  // namespace vae::kernels
