#include "host/cpu/gaussian.h"

#include <cmath>
#include <numbers>

#include "host/cpu/pixel_loops.h"

namespace vae::cpu {
namespace {

// The loss is (m − x)² here: what it is multiplied by, and the constant, are the same for all
// pixels and come in after the sum.
template <class Factor>
struct SquarePixel {
    Factor factor;  // of the gradient

    template <class T>
    VAE_CPU_INLINE T operator()(T m, T x, T& gradient) const {
        const T error = m - x;
        gradient = factor * error;
        return error * error;
    }
};

template <class T>
VAE_CPU_INLINE void biased_row(const T* product, const T* bias, std::size_t outputs, T* out) {
#pragma omp simd
    for (std::size_t c = 0; c < outputs; ++c) out[c] = product[c] + bias[c];
}

VAE_CPU_CLONES void biased(const float* product, const float* bias, std::size_t outputs,
                           float* out) {
    biased_row(product, bias, outputs, out);
}

void biased(const double* product, const double* bias, std::size_t outputs, double* out) {
    biased_row(product, bias, outputs, out);
}

// From Σ (m − x)² to −log p(x|z). The constant is large next to the sum: add it in double.
template <class T>
auto recon_of(std::size_t pixels, double sigma) {
    const double factor = 1 / (2 * sigma * sigma);
    const double constant =
        static_cast<double>(pixels) * (std::log(sigma) + std::log(2 * std::numbers::pi) / 2);
    return [=](std::size_t, T squares) {
        return static_cast<T>(static_cast<double>(squares) * factor + constant);
    };
}

template <class T>
SquarePixel<T> pixel_of(double sigma) {
    return {static_cast<T>(1 / (sigma * sigma))};
}

}  // namespace

template <class T>
void gaussian_forward(const LikelihoodInput<T>& in, double sigma, T* recon) {
    pixels_forward(pixel_of<T>(sigma), in, recon, recon_of<T>(in.pixels, sigma));
}

template <class T>
void gaussian_forward_backward(const LikelihoodInput<T>& in, double sigma,
                               const LikelihoodGradient<T>& gradient, T* recon) {
    pixels_forward_backward(pixel_of<T>(sigma), in, gradient, recon, recon_of<T>(in.pixels, sigma));
}

template <class T>
void add_bias(const T* product, const T* bias, std::size_t rows, std::size_t outputs, T* out) {
    for_each_chunk(rows, outputs, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            biased(product + r * outputs, bias, outputs, out + r * outputs);
        }
    });
}

template void gaussian_forward(const LikelihoodInput<float>&, double, float*);
template void gaussian_forward(const LikelihoodInput<double>&, double, double*);
template void gaussian_forward_backward(const LikelihoodInput<float>&, double,
                                        const LikelihoodGradient<float>&, float*);
template void gaussian_forward_backward(const LikelihoodInput<double>&, double,
                                        const LikelihoodGradient<double>&, double*);
template void add_bias(const float*, const float*, std::size_t, std::size_t, float*);
template void add_bias(const double*, const double*, std::size_t, std::size_t, double*);

}  // namespace vae::cpu
