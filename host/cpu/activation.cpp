#include "host/cpu/activation.h"

#include <cmath>
#include <numbers>
#include <stdexcept>

#include "host/cpu/scalar_math.h"
#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

template <Activation f, class T>
VAE_CPU_INLINE T activate(T a) {
    if constexpr (f == Activation::relu) return positive_part(a);
    if constexpr (f == Activation::tanh) return std::tanh(a);
    if constexpr (f == Activation::softplus) return positive_part(a) + log1p_exp_minus_abs(a);
    if constexpr (f == Activation::gelu) return a * normal_cdf(a);
    if constexpr (f == Activation::silu) return a * sigmoid(a);
}

template <Activation f, class T>
VAE_CPU_INLINE T derivative(T a) {
    if constexpr (f == Activation::relu) return a > 0 ? T(1) : (a <= 0 ? T(0) : a);  // NaN passes
    if constexpr (f == Activation::tanh) {
        const T h = std::tanh(a);
        return 1 - h * h;
    }
    if constexpr (f == Activation::softplus) return sigmoid(a);
    if constexpr (f == Activation::gelu) {
        constexpr T kInverseSqrt2Pi = std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
        return normal_cdf(a) + a * kInverseSqrt2Pi * std::exp(-a * a / 2);
    }
    if constexpr (f == Activation::silu) {
        const T s = sigmoid(a);
        return s * (1 + a * (1 - s));
    }
}

// Rows [first, last) of both passes. h may be product, and d_pre may be d_h: each element is read
// before it is written, which `omp simd` lets the compiler rely on.
template <Activation f, class T>
VAE_CPU_INLINE void forward_rows(const T* product, const T* bias, std::size_t first,
                                 std::size_t last, std::size_t cols, T* h) {
    for (std::size_t r = first; r < last; ++r) {
        const T* product_row = product + r * cols;
        T* h_row = h + r * cols;
#pragma omp simd
        for (std::size_t c = 0; c < cols; ++c) h_row[c] = activate<f>(product_row[c] + bias[c]);
    }
}

template <Activation f, class T>
VAE_CPU_INLINE void backward_rows(const T* product, const T* bias, const T* d_h, std::size_t first,
                                  std::size_t last, std::size_t cols, T* d_pre, T* sums) {
    for (std::size_t c = 0; c < cols; ++c) sums[c] = 0;
    for (std::size_t r = first; r < last; ++r) {
        const T* product_row = product + r * cols;
        const T* d_h_row = d_h + r * cols;
        T* d_pre_row = d_pre + r * cols;
#pragma omp simd
        for (std::size_t c = 0; c < cols; ++c) {
            const T d = d_h_row[c] * derivative<f>(product_row[c] + bias[c]);
            d_pre_row[c] = d;
            sums[c] += d;
        }
    }
}

template <Activation f>
VAE_CPU_CLONES void forward_chunk(const float* product, const float* bias, std::size_t first,
                                  std::size_t last, std::size_t cols, float* h) {
    forward_rows<f>(product, bias, first, last, cols, h);
}

template <Activation f>
void forward_chunk(const double* product, const double* bias, std::size_t first, std::size_t last,
                   std::size_t cols, double* h) {
    forward_rows<f>(product, bias, first, last, cols, h);
}

template <Activation f>
VAE_CPU_CLONES void backward_chunk(const float* product, const float* bias, const float* d_h,
                                   std::size_t first, std::size_t last, std::size_t cols,
                                   float* d_pre, float* sums) {
    backward_rows<f>(product, bias, d_h, first, last, cols, d_pre, sums);
}

template <Activation f>
void backward_chunk(const double* product, const double* bias, const double* d_h, std::size_t first,
                    std::size_t last, std::size_t cols, double* d_pre, double* sums) {
    backward_rows<f>(product, bias, d_h, first, last, cols, d_pre, sums);
}

template <Activation f>
struct Constant {
    static constexpr Activation kActivation = f;
};

// Calls work with the activation as a constant.
template <class Work>
void with_activation(Activation f, Work work) {
    switch (f) {
        case Activation::relu:
            work(Constant<Activation::relu>());
            break;
        case Activation::tanh:
            work(Constant<Activation::tanh>());
            break;
        case Activation::softplus:
            work(Constant<Activation::softplus>());
            break;
        case Activation::gelu:
            work(Constant<Activation::gelu>());
            break;
        case Activation::silu:
            work(Constant<Activation::silu>());
            break;
        case Activation::gated:
            throw std::logic_error("a gated layer has no activation of one number");
    }
}

}  // namespace

template <class T>
void bias_activation_forward(Activation f, const T* product, const T* bias, std::size_t rows,
                             std::size_t cols, T* h) {
    with_activation(f, [=](auto constant) {
        for_each_chunk(rows, cols, [=](std::size_t, std::size_t first, std::size_t last) {
            forward_chunk<decltype(constant)::kActivation>(product, bias, first, last, cols, h);
        });
    });
}

template <class T>
void bias_activation_backward(Activation f, const T* product, const T* bias, const T* d_h,
                              std::size_t rows, std::size_t cols, T* d_pre, T* d_bias,
                              T* partials) {
    with_activation(f, [=](auto constant) {
        for_each_chunk(rows, cols, [=](std::size_t chunk, std::size_t first, std::size_t last) {
            backward_chunk<decltype(constant)::kActivation>(product, bias, d_h, first, last, cols,
                                                            d_pre, partials + chunk * cols);
        });
    });
    add_chunks(partials, chunk_count(rows), cols, cols, d_bias);
}

template void bias_activation_forward(Activation, const float*, const float*, std::size_t,
                                      std::size_t, float*);
template void bias_activation_forward(Activation, const double*, const double*, std::size_t,
                                      std::size_t, double*);
template void bias_activation_backward(Activation, const float*, const float*, const float*,
                                       std::size_t, std::size_t, float*, float*, float*);
template void bias_activation_backward(Activation, const double*, const double*, const double*,
                                       std::size_t, std::size_t, double*, double*, double*);

}  // namespace vae::cpu
