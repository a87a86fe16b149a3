// Bernoulli likelihood on logits: loss, gradient and bias gradient in one pass. T is float or
// double. One output a pixel.
#pragma once

#include "host/cpu/likelihood_rows.h"

namespace vae::cpu {

// Computes  l = product + bias; recon[r] = Σ_c max(l, 0) − l·x + log1p(exp(−|l|))
template <class T>
void bernoulli_forward(const LikelihoodInput<T>& in, T* recon);

// Computes  recon as above; d_product = scale·row_weight[r]·(sigmoid(l) − x);
//           d_bias[c] = Σ_r d_product[r, c]
template <class T>
void bernoulli_forward_backward(const LikelihoodInput<T>& in, const LikelihoodGradient<T>& gradient,
                                T* recon);

// Computes  mean[rows, pixels] = sigmoid(product + bias); mean may be product; x is not used
template <class T>
void bernoulli_mean(const LikelihoodInput<T>& in, T* mean);

}  // namespace vae::cpu
