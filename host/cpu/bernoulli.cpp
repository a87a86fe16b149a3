#include "host/cpu/bernoulli.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/scalar_math.h"
#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

template <class T>
VAE_CPU_INLINE T forward_row(const T* product, const T* bias, const T* x, std::size_t cols) {
    return row_sum<T>(cols, [=](std::size_t c) {
        const T l = product[c] + bias[c];
        return positive_part(l) - l * x[c] + log1p_exp_minus_abs(l);
    });
}

// exp(−|l|) serves both the loss and the sigmoid.
template <class T>
VAE_CPU_INLINE T backward_row(const T* product, const T* bias, const T* x, std::size_t cols,
                              T scale, T* d_product, T* sums) {
    return row_sum<T>(cols, [=](std::size_t c) {
        const T l = product[c] + bias[c];
        const T t = std::exp(-std::abs(l));
        const T d = scale * ((l < 0 ? t : T(1)) / (1 + t) - x[c]);
        d_product[c] = d;
        sums[c] += d;
        return positive_part(l) - l * x[c] + std::log1p(t);
    });
}

template <class T>
VAE_CPU_INLINE void mean_row(const T* product, const T* bias, std::size_t cols, T* mean) {
#pragma omp simd
    for (std::size_t c = 0; c < cols; ++c) mean[c] = sigmoid(product[c] + bias[c]);
}

VAE_CPU_CLONES float forward(const float* product, const float* bias, const float* x,
                             std::size_t cols) {
    return forward_row(product, bias, x, cols);
}

double forward(const double* product, const double* bias, const double* x, std::size_t cols) {
    return forward_row(product, bias, x, cols);
}

VAE_CPU_CLONES float backward(const float* product, const float* bias, const float* x,
                              std::size_t cols, float scale, float* d_product, float* sums) {
    return backward_row(product, bias, x, cols, scale, d_product, sums);
}

double backward(const double* product, const double* bias, const double* x, std::size_t cols,
                double scale, double* d_product, double* sums) {
    return backward_row(product, bias, x, cols, scale, d_product, sums);
}

VAE_CPU_CLONES void mean_of(const float* product, const float* bias, std::size_t cols,
                            float* mean) {
    mean_row(product, bias, cols, mean);
}

void mean_of(const double* product, const double* bias, std::size_t cols, double* mean) {
    mean_row(product, bias, cols, mean);
}

}  // namespace

template <class T>
void bernoulli_forward(const T* product, const T* bias, const T* x, std::size_t rows,
                       std::size_t cols, T* recon) {
    for_each_chunk(rows, cols, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            recon[r] = forward(product + r * cols, bias, x + r * cols, cols);
        }
    });
}

template <class T>
void bernoulli_forward_backward(const T* product, const T* bias, const T* x, std::size_t rows,
                                std::size_t cols, double scale, T* recon, T* d_product, T* d_bias,
                                T* partials) {
    for_each_chunk(rows, cols, [=](std::size_t chunk, std::size_t first, std::size_t last) {
        T* sums = partials + chunk * cols;
        std::fill_n(sums, cols, T(0));
        for (std::size_t r = first; r < last; ++r) {
            recon[r] = backward(product + r * cols, bias, x + r * cols, cols, static_cast<T>(scale),
                                d_product + r * cols, sums);
        }
    });
    add_chunks(partials, chunk_count(rows), cols, cols, d_bias);
}

template <class T>
void bernoulli_mean(const T* product, const T* bias, std::size_t rows, std::size_t cols, T* mean) {
    for_each_chunk(rows, cols, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            mean_of(product + r * cols, bias, cols, mean + r * cols);
        }
    });
}

template void bernoulli_forward(const float*, const float*, const float*, std::size_t, std::size_t,
                                float*);
template void bernoulli_forward(const double*, const double*, const double*, std::size_t,
                                std::size_t, double*);
template void bernoulli_forward_backward(const float*, const float*, const float*, std::size_t,
                                         std::size_t, double, float*, float*, float*, float*);
template void bernoulli_forward_backward(const double*, const double*, const double*, std::size_t,
                                         std::size_t, double, double*, double*, double*, double*);
template void bernoulli_mean(const float*, const float*, std::size_t, std::size_t, float*);
template void bernoulli_mean(const double*, const double*, std::size_t, std::size_t, double*);

}  // namespace vae::cpu
