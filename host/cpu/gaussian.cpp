#include "host/cpu/gaussian.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

// Σ (m − x)².
template <class T>
VAE_CPU_INLINE T forward_row(const T* product, const T* bias, const T* x, std::size_t cols) {
    return row_sum<T>(cols, [=](std::size_t c) {
        const T error = product[c] + bias[c] - x[c];
        return error * error;
    });
}

// The same, d_product = factor·(m − x), and adds its columns to sums.
template <class T>
VAE_CPU_INLINE T backward_row(const T* product, const T* bias, const T* x, std::size_t cols,
                              T factor, T* d_product, T* sums) {
    return row_sum<T>(cols, [=](std::size_t c) {
        const T error = product[c] + bias[c] - x[c];
        d_product[c] = factor * error;
        sums[c] += factor * error;
        return error * error;
    });
}

template <class T>
VAE_CPU_INLINE void mean_row(const T* product, const T* bias, std::size_t cols, T* mean) {
#pragma omp simd
    for (std::size_t c = 0; c < cols; ++c) mean[c] = product[c] + bias[c];
}

VAE_CPU_CLONES float forward(const float* product, const float* bias, const float* x,
                             std::size_t cols) {
    return forward_row(product, bias, x, cols);
}

double forward(const double* product, const double* bias, const double* x, std::size_t cols) {
    return forward_row(product, bias, x, cols);
}

VAE_CPU_CLONES float backward(const float* product, const float* bias, const float* x,
                              std::size_t cols, float factor, float* d_product, float* sums) {
    return backward_row(product, bias, x, cols, factor, d_product, sums);
}

double backward(const double* product, const double* bias, const double* x, std::size_t cols,
                double factor, double* d_product, double* sums) {
    return backward_row(product, bias, x, cols, factor, d_product, sums);
}

VAE_CPU_CLONES void mean_of(const float* product, const float* bias, std::size_t cols,
                            float* mean) {
    mean_row(product, bias, cols, mean);
}

void mean_of(const double* product, const double* bias, std::size_t cols, double* mean) {
    mean_row(product, bias, cols, mean);
}

// From Σ (m − x)² to −log p(x|z). The constant is large next to the sum: add it in double.
template <class T>
T recon_of(T squares, std::size_t cols, double sigma) {
    const double constant = std::log(sigma) + std::log(2 * std::numbers::pi) / 2;
    return static_cast<T>(static_cast<double>(squares) / (2 * sigma * sigma) +
                          static_cast<double>(cols) * constant);
}

}  // namespace

template <class T>
void gaussian_forward(const T* product, const T* bias, const T* x, std::size_t rows,
                      std::size_t cols, double sigma, T* recon) {
    for_each_chunk(rows, cols, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            recon[r] = recon_of(forward(product + r * cols, bias, x + r * cols, cols), cols, sigma);
        }
    });
}

template <class T>
void gaussian_forward_backward(const T* product, const T* bias, const T* x, std::size_t rows,
                               std::size_t cols, double sigma, double scale, T* recon, T* d_product,
                               T* d_bias, T* partials) {
    const auto factor = static_cast<T>(scale / (sigma * sigma));
    for_each_chunk(rows, cols, [=](std::size_t chunk, std::size_t first, std::size_t last) {
        T* sums = partials + chunk * cols;
        std::fill_n(sums, cols, T(0));
        for (std::size_t r = first; r < last; ++r) {
            const T squares = backward(product + r * cols, bias, x + r * cols, cols, factor,
                                       d_product + r * cols, sums);
            recon[r] = recon_of(squares, cols, sigma);
        }
    });
    add_chunks(partials, chunk_count(rows), cols, cols, d_bias);
}

template <class T>
void gaussian_mean(const T* product, const T* bias, std::size_t rows, std::size_t cols, T* mean) {
    for_each_chunk(rows, cols, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            mean_of(product + r * cols, bias, cols, mean + r * cols);
        }
    });
}

template void gaussian_forward(const float*, const float*, const float*, std::size_t, std::size_t,
                               double, float*);
template void gaussian_forward(const double*, const double*, const double*, std::size_t,
                               std::size_t, double, double*);
template void gaussian_forward_backward(const float*, const float*, const float*, std::size_t,
                                        std::size_t, double, double, float*, float*, float*,
                                        float*);
template void gaussian_forward_backward(const double*, const double*, const double*, std::size_t,
                                        std::size_t, double, double, double*, double*, double*,
                                        double*);
template void gaussian_mean(const float*, const float*, std::size_t, std::size_t, float*);
template void gaussian_mean(const double*, const double*, std::size_t, std::size_t, double*);

}  // namespace vae::cpu
