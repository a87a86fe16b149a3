#include "host/cpu/bernoulli.h"

#include <cmath>

#include "host/cpu/pixel_loops.h"
#include "host/cpu/scalar_math.h"

namespace vae::cpu {
namespace {

// exp(−|l|) serves both the loss and the sigmoid.
struct BernoulliPixel {
    template <class T>
    VAE_CPU_INLINE T operator()(T l, T x, T& gradient) const {
        const T t = std::exp(-std::abs(l));
        gradient = (l < 0 ? t : T(1)) / (1 + t) - x;
        return positive_part(l) - l * x + std::log1p(t);
    }
};

template <class T>
VAE_CPU_INLINE void mean_row(const T* product, const T* bias, std::size_t pixels, T* mean) {
#pragma omp simd
    for (std::size_t c = 0; c < pixels; ++c) mean[c] = sigmoid(product[c] + bias[c]);
}

VAE_CPU_CLONES void mean_of(const float* product, const float* bias, std::size_t pixels,
                            float* mean) {
    mean_row(product, bias, pixels, mean);
}

void mean_of(const double* product, const double* bias, std::size_t pixels, double* mean) {
    mean_row(product, bias, pixels, mean);
}

// The losses are all there is to recon.
template <class T>
T as_it_is(std::size_t, T sum) {
    return sum;
}

}  // namespace

template <class T>
void bernoulli_forward(const LikelihoodInput<T>& in, T* recon) {
    pixels_forward(BernoulliPixel{}, in, recon, as_it_is<T>);
}

template <class T>
void bernoulli_forward_backward(const LikelihoodInput<T>& in, const LikelihoodGradient<T>& gradient,
                                T* recon) {
    pixels_forward_backward(BernoulliPixel{}, in, gradient, recon, as_it_is<T>);
}

template <class T>
void bernoulli_mean(const LikelihoodInput<T>& in, T* mean) {
    for_each_chunk(in.rows, in.pixels, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            mean_of(in.product + r * in.pixels, in.bias, in.pixels, mean + r * in.pixels);
        }
    });
}

template void bernoulli_forward(const LikelihoodInput<float>&, float*);
template void bernoulli_forward(const LikelihoodInput<double>&, double*);
template void bernoulli_forward_backward(const LikelihoodInput<float>&,
                                         const LikelihoodGradient<float>&, float*);
template void bernoulli_forward_backward(const LikelihoodInput<double>&,
                                         const LikelihoodGradient<double>&, double*);
template void bernoulli_mean(const LikelihoodInput<float>&, float*);
template void bernoulli_mean(const LikelihoodInput<double>&, double*);

}  // namespace vae::cpu
