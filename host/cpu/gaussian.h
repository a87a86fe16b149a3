// Gaussian likelihood: loss, gradient and bias gradient in one pass. T is float or double.
#pragma once

#include "host/cpu/likelihood_rows.h"

namespace vae::cpu {

// One variance of all pixels; one output a pixel.
// Computes  m = product + bias; recon[r] = Σ_c ½(x − m)²/variance + ½ log(2π·variance)
template <class T>
void gaussian_forward(const LikelihoodInput<T>& in, double variance, T* recon);

// Computes  recon as above; d_product = scale·row_weight[r]·(m − x)/variance;
//           d_bias[c] = Σ_r d_product[r, c]; squares[r] = Σ_c (x − m)²
template <class T>
void gaussian_forward_backward(const LikelihoodInput<T>& in, double variance,
                               const LikelihoodGradient<T>& gradient, T* recon, T* squares);

// Computes  squares[r] = Σ_c (x − m)²
template <class T>
void gaussian_squares(const LikelihoodInput<T>& in, T* squares);

// From squares of gaussian_forward_backward: d(Σ_r scale·row_weight[r]·recon[r])/d log(variance).
template <class T>
double gaussian_logvar_gradient(const LikelihoodInput<T>& in, double variance,
                                const LikelihoodGradient<T>& gradient, const T* squares);

// A variance for each pixel: outputs m and s, logvar = bounded(s, least, most).
// Computes  recon[r] = Σ_c ½(x − m)²·exp(−logvar) + ½ logvar + ½ log 2π
template <class T>
void gaussian_pixel_forward(const LikelihoodInput<T>& in, double least, double most, T* recon);

template <class T>
void gaussian_pixel_forward_backward(const LikelihoodInput<T>& in, double least, double most,
                                     const LikelihoodGradient<T>& gradient, T* recon);

// Computes  out[rows, cols] = product + bias of the first cols of `stride` columns; out may be
//           product if they are all
template <class T>
void add_bias(const T* product, const T* bias, std::size_t rows, std::size_t stride,
              std::size_t cols, T* out);

}  // namespace vae::cpu
