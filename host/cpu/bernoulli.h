// Bernoulli likelihood on logits: loss, gradient and bias gradient in one pass. T is float or
// double.
#pragma once

#include <cstddef>

namespace vae::cpu {

// Computes  l = product + bias; recon[r] = Σ_c max(l, 0) − l·x + log1p(exp(−|l|))
// Shapes    product, x [rows, cols]; bias[cols]; recon[rows]
template <class T>
void bernoulli_forward(const T* product, const T* bias, const T* x, std::size_t rows,
                       std::size_t cols, T* recon);

// Computes  recon as above; d_product = scale·(sigmoid(l) − x); d_bias[c] = Σ_r d_product[r, c]
// Shapes    as above; d_product may be product; partials[chunk_count(rows), cols] is overwritten
template <class T>
void bernoulli_forward_backward(const T* product, const T* bias, const T* x, std::size_t rows,
                                std::size_t cols, double scale, T* recon, T* d_product, T* d_bias,
                                T* partials);

// Computes  mean = sigmoid(product + bias); mean may be product
template <class T>
void bernoulli_mean(const T* product, const T* bias, std::size_t rows, std::size_t cols, T* mean);

}  // namespace vae::cpu
