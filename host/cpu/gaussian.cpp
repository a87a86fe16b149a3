#include "host/cpu/gaussian.h"

#include <cmath>
#include <numbers>

#include "host/cpu/pixel_loops.h"
#include "host/cpu/scalar_math.h"

namespace vae::cpu {
namespace {

const double kHalfLogTwoPi = std::log(2 * std::numbers::pi) / 2;

// The loss is (m − x)² here: what it is multiplied by, and the constant, are the same for all
// pixels and come in after the sum.
template <class Factor>
struct SquarePixel {
    static constexpr std::size_t kOutputs = 1;

    Factor factor;  // of the gradient

    template <class T>
    VAE_CPU_INLINE T operator()(T m, T x, T& d_m) const {
        const T error = m - x;
        d_m = factor * error;
        return error * error;
    }
};

// Without ½ log 2π, which comes in after the sum.
template <class Bound>
struct ScaledPixel {
    static constexpr std::size_t kOutputs = 2;

    Bound least;
    Bound most;

    template <class T>
    VAE_CPU_INLINE T operator()(T m, T s, T x, T& d_m, T& d_s) const {
        T slope = 0;
        const T logvar = bounded(s, least, most, slope);
        const T precision = std::exp(-logvar);
        const T error = m - x;
        const T square = error * error * precision;
        d_m = error * precision;
        d_s = (1 - square) / 2 * slope;
        return (square + logvar) / 2;
    }
};

struct Identity {
    template <class T>
    VAE_CPU_INLINE T operator()(T m) const {
        return m;
    }
};

// From Σ (m − x)² to −log p(x|z). The constant is large next to the sum: add it in double.
template <class T>
auto recon_of(std::size_t pixels, double variance, T* squares) {
    const double constant = static_cast<double>(pixels) * (std::log(variance) / 2 + kHalfLogTwoPi);
    return [=](std::size_t r, T sum) {
        if (squares != nullptr) squares[r] = sum;
        return static_cast<T>(static_cast<double>(sum) / (2 * variance) + constant);
    };
}

template <class T>
auto with_constant(std::size_t pixels) {
    const double constant = static_cast<double>(pixels) * kHalfLogTwoPi;
    return [=](std::size_t, T sum) { return static_cast<T>(static_cast<double>(sum) + constant); };
}

template <class T>
SquarePixel<T> pixel_of(double variance) {
    return {static_cast<T>(1 / variance)};
}

template <class T>
ScaledPixel<T> pixel_of(double least, double most) {
    return {static_cast<T>(least), static_cast<T>(most)};
}

}  // namespace

template <class T>
void gaussian_forward(const LikelihoodInput<T>& in, double variance, T* recon) {
    pixels_forward(pixel_of<T>(variance), in, recon, recon_of<T>(in.pixels, variance, nullptr));
}

template <class T>
void gaussian_forward_backward(const LikelihoodInput<T>& in, double variance,
                               const LikelihoodGradient<T>& gradient, T* recon, T* squares) {
    pixels_forward_backward(pixel_of<T>(variance), in, gradient, recon,
                            recon_of<T>(in.pixels, variance, squares));
}

template <class T>
void gaussian_squares(const LikelihoodInput<T>& in, T* squares) {
    pixels_forward(pixel_of<T>(1), in, squares);
}

template <class T>
double gaussian_logvar_gradient(const LikelihoodInput<T>& in, double variance,
                                const LikelihoodGradient<T>& gradient, const T* squares) {
    double sum = 0;
    for (std::size_t r = 0; r < in.rows; ++r) {
        const double expected = static_cast<double>(in.pixels);
        sum += static_cast<double>(gradient.weight(r)) *
               (expected - static_cast<double>(squares[r]) / variance) / 2;
    }
    return sum;
}

template <class T>
void gaussian_pixel_forward(const LikelihoodInput<T>& in, double least, double most, T* recon) {
    pixels_forward(pixel_of<T>(least, most), in, recon, with_constant<T>(in.pixels));
}

template <class T>
void gaussian_pixel_forward_backward(const LikelihoodInput<T>& in, double least, double most,
                                     const LikelihoodGradient<T>& gradient, T* recon) {
    pixels_forward_backward(pixel_of<T>(least, most), in, gradient, recon,
                            with_constant<T>(in.pixels));
}

template <class T>
void add_bias(const T* product, const T* bias, std::size_t rows, std::size_t stride,
              std::size_t cols, T* out) {
    map_outputs(Identity{}, product, bias, rows, stride, cols, out);
}

template void gaussian_forward(const LikelihoodInput<float>&, double, float*);
template void gaussian_forward(const LikelihoodInput<double>&, double, double*);
template void gaussian_forward_backward(const LikelihoodInput<float>&, double,
                                        const LikelihoodGradient<float>&, float*, float*);
template void gaussian_forward_backward(const LikelihoodInput<double>&, double,
                                        const LikelihoodGradient<double>&, double*, double*);
template void gaussian_squares(const LikelihoodInput<float>&, float*);
template void gaussian_squares(const LikelihoodInput<double>&, double*);
template double gaussian_logvar_gradient(const LikelihoodInput<float>&, double,
                                         const LikelihoodGradient<float>&, const float*);
template double gaussian_logvar_gradient(const LikelihoodInput<double>&, double,
                                         const LikelihoodGradient<double>&, const double*);
template void gaussian_pixel_forward(const LikelihoodInput<float>&, double, double, float*);
template void gaussian_pixel_forward(const LikelihoodInput<double>&, double, double, double*);
template void gaussian_pixel_forward_backward(const LikelihoodInput<float>&, double, double,
                                              const LikelihoodGradient<float>&, float*);
template void gaussian_pixel_forward_backward(const LikelihoodInput<double>&, double, double,
                                              const LikelihoodGradient<double>&, double*);
template void add_bias(const float*, const float*, std::size_t, std::size_t, std::size_t, float*);
template void add_bias(const double*, const double*, std::size_t, std::size_t, std::size_t,
                       double*);

}  // namespace vae::cpu
