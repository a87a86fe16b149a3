// Poisson likelihood of counts: loss, gradient and bias gradient in one pass. T is float or double.
// One output a pixel: the logarithm of the rate.
#pragma once

#include <cstddef>

#include "host/cpu/likelihood_rows.h"

namespace vae::cpu {

// Computes  l = product + bias; recon[r] = Σ_c exp(l) − x·l + log x!
template <class T>
void poisson_forward(const LikelihoodInput<T>& in, T* recon);

// Computes  recon as above; d_product = scale·row_weight[r]·(exp(l) − x);
//           d_bias[c] = Σ_r d_product[r, c]
template <class T>
void poisson_forward_backward(const LikelihoodInput<T>& in, const LikelihoodGradient<T>& gradient,
                              T* recon);

// Computes  out[rows, cols] = log2(1 + x)/8, what the encoder sees of counts; out may be x
template <class T>
void log_counts(const T* x, std::size_t rows, std::size_t cols, T* out);

// Computes  mean[rows, pixels] = exp(product + bias); mean may be product; x is not used
template <class T>
void poisson_mean(const LikelihoodInput<T>& in, T* mean);

}  // namespace vae::cpu
