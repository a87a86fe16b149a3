#include "host/cpu/poisson.h"

#include <math.h>  // NOLINT(modernize-deprecated-headers): lgamma_r

#include <cmath>
#include <numbers>
#include <type_traits>

#include "host/cpu/pixel_loops.h"

namespace vae::cpu {
namespace {

// x − x·log x + log x! of a count: ½ log(2πx) + 1/(12x) − … (Stirling). The terms left out from
// x = 4 on are below 1/(1680·4⁷) = 4e-8.
VAE_CPU_INLINE float stirling(float x) {
    constexpr float kLog2 = std::numbers::ln2_v<float>;
    constexpr float kLogOfTwoPi = 1.837877066409345F;
    const float r = 1 / x;
    const float series = (std::log(x) + kLogOfTwoPi) / 2 +
                         r * (1.0F / 12 - r * r * (1.0F / 360 - r * r * (1.0F / 1260)));
    const float of_three = 1.4959226F;  // 3 − 3 log 3 + log 6
    return x == 0 ? 0.0F : x == 1 ? 1.0F : x == 2 ? 2 - kLog2 : x == 3 ? of_three : series;
}

struct PoissonPixel {
    static constexpr std::size_t kOutputs = 1;

    template <class T>
    VAE_CPU_INLINE T operator()(T l, T x, T& d_l) const {
        const T rate = std::exp(l);
        d_l = rate - x;
        if constexpr (std::is_same_v<T, float>) {
            // The three terms of the definition grow as x·log x and cancel. With t = l − log x
            // they are x·(e^t − 1 − t), never negative, and what depends on x alone.
            const T t = l - std::log(x == 0 ? T(1) : x);
            return (x == 0 ? rate : x * (std::expm1(t) - t)) + stirling(x);
        } else {
            int sign = 0;
            return rate - x * l + ::lgamma_r(x + 1, &sign);
        }
    }
};

struct Exponential {
    template <class T>
    VAE_CPU_INLINE T operator()(T l) const {
        return std::exp(l);
    }
};

template <class T>
VAE_CPU_INLINE void log_columns(const T* x, std::size_t cols, T* out) {
    constexpr T kFactor = std::numbers::log2e_v<T> / 8;
#pragma omp simd
    for (std::size_t c = 0; c < cols; ++c) out[c] = std::log1p(x[c]) * kFactor;
}

VAE_CPU_CLONES void log_row(const float* x, std::size_t cols, float* out) {
    log_columns(x, cols, out);
}

void log_row(const double* x, std::size_t cols, double* out) {
    log_columns(x, cols, out);
}

}  // namespace

template <class T>
void poisson_forward(const LikelihoodInput<T>& in, T* recon) {
    pixels_forward(PoissonPixel{}, in, recon);
}

template <class T>
void poisson_forward_backward(const LikelihoodInput<T>& in, const LikelihoodGradient<T>& gradient,
                              T* recon) {
    pixels_forward_backward(PoissonPixel{}, in, gradient, recon);
}

template <class T>
void poisson_mean(const LikelihoodInput<T>& in, T* mean) {
    map_outputs(Exponential{}, in.product, in.bias, in.rows, in.pixels, in.pixels, mean);
}

template <class T>
void log_counts(const T* x, std::size_t rows, std::size_t cols, T* out) {
    for_each_row(rows, cols, [=](std::size_t r) { log_row(x + r * cols, cols, out + r * cols); });
}

template void poisson_forward(const LikelihoodInput<float>&, float*);
template void poisson_forward(const LikelihoodInput<double>&, double*);
template void poisson_forward_backward(const LikelihoodInput<float>&,
                                       const LikelihoodGradient<float>&, float*);
template void poisson_forward_backward(const LikelihoodInput<double>&,
                                       const LikelihoodGradient<double>&, double*);
template void poisson_mean(const LikelihoodInput<float>&, float*);
template void poisson_mean(const LikelihoodInput<double>&, double*);
template void log_counts(const float*, std::size_t, std::size_t, float*);
template void log_counts(const double*, std::size_t, std::size_t, double*);

}  // namespace vae::cpu
