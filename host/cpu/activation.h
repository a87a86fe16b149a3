// Bias and activation behind a matrix product, and their backward. T is float or double.
//   relu max(a, 0); tanh; softplus log(1 + e^a); gelu a·Φ(a) (Hendrycks & Gimpel 2016, with erf);
//   silu a·sigmoid(a).  relu'(0) is 0. A NaN stays a NaN. Gated layers: host/cpu/gated.h.
#pragma once

#include <cstddef>

#include "host/config.h"

namespace vae::cpu {

// Computes  h = f(product + bias)
// Shapes    product, h [rows, cols]; bias[cols]; h may be product
template <class T>
void bias_activation_forward(Activation f, const T* product, const T* bias, std::size_t rows,
                             std::size_t cols, T* h);

// Computes  d_pre = d_h · f'(product + bias); d_bias[c] = Σ_r d_pre[r, c]
// Shapes    product, d_h, d_pre [rows, cols]; bias, d_bias [cols]; d_pre may be d_h;
//           partials[chunk_count(rows), cols] is overwritten
template <class T>
void bias_activation_backward(Activation f, const T* product, const T* bias, const T* d_h,
                              std::size_t rows, std::size_t cols, T* d_pre, T* d_bias, T* partials);

}  // namespace vae::cpu
