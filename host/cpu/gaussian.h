// Gaussian likelihood with one fixed sigma: loss, gradient and bias gradient in one pass. T is
// float or double.
#pragma once

#include <cstddef>

namespace vae::cpu {

// Computes  m = product + bias; recon[r] = Σ_c ½((x − m)/sigma)² + log sigma + ½ log 2π
// Shapes    product, x [rows, cols]; bias[cols]; recon[rows]; sigma > 0
template <class T>
void gaussian_forward(const T* product, const T* bias, const T* x, std::size_t rows,
                      std::size_t cols, double sigma, T* recon);

// Computes  recon as above; d_product = scale·(m − x)/sigma²; d_bias[c] = Σ_r d_product[r, c]
// Shapes    as above; d_product may be product; partials[chunk_count(rows), cols] is overwritten
template <class T>
void gaussian_forward_backward(const T* product, const T* bias, const T* x, std::size_t rows,
                               std::size_t cols, double sigma, double scale, T* recon, T* d_product,
                               T* d_bias, T* partials);

// Computes  mean = product + bias; mean may be product
template <class T>
void gaussian_mean(const T* product, const T* bias, std::size_t rows, std::size_t cols, T* mean);

}  // namespace vae::cpu
