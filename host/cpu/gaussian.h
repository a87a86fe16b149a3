// Gaussian likelihood with one fixed sigma: loss, gradient and bias gradient in one pass. T is
// float or double. One output a pixel.
#pragma once

#include "host/cpu/likelihood_rows.h"

namespace vae::cpu {

// Computes  m = product + bias; recon[r] = Σ_c ½((x − m)/sigma)² + log sigma + ½ log 2π
template <class T>
void gaussian_forward(const LikelihoodInput<T>& in, double sigma, T* recon);

// Computes  recon as above; d_product = scale·row_weight[r]·(m − x)/sigma²;
//           d_bias[c] = Σ_r d_product[r, c]
template <class T>
void gaussian_forward_backward(const LikelihoodInput<T>& in, double sigma,
                               const LikelihoodGradient<T>& gradient, T* recon);

// Computes  out[rows, outputs] = product + bias; out may be product
template <class T>
void add_bias(const T* product, const T* bias, std::size_t rows, std::size_t outputs, T* out);

}  // namespace vae::cpu
