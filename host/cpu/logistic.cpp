#include "host/cpu/logistic.h"

#include <cmath>
#include <vector>

#include "host/cpu/pixel_loops.h"
#include "host/cpu/scalar_math.h"

namespace vae::cpu {
namespace {

// σ(a) − σ(b) = σ(a)·σ(−b)·(1 − exp(b − a)): a product, so its logarithm is a sum of three terms
// and nothing cancels. At an edge the term of the bound that is not there is left out, and the
// third with it.
template <class Number>
struct LogisticPixel {
    static constexpr std::size_t kOutputs = 2;

    Number half_bin;
    Number least;
    Number most;

    template <class T>
    VAE_CPU_INLINE T operator()(T m, T s, T x, T& d_m, T& d_s) const {
        T slope = 0;
        const T log_scale = bounded(s, least, most, slope);
        const T inverse = std::exp(-log_scale);
        const T a = (x - m + half_bin) * inverse;
        const T b = (x - m - half_bin) * inverse;
        const T width = 2 * half_bin * inverse;  // a − b
        const T has_upper = x > 1 - half_bin ? T(0) : T(1);
        const T has_lower = x < half_bin ? T(0) : T(1);
        const T growth = std::expm1(width);
        const T softplus_minus_a = positive_part(-a) + log1p_exp_minus_abs(a);
        const T softplus_b = positive_part(b) + log1p_exp_minus_abs(b);
        const T above = has_upper * sigmoid(-a);
        const T below = has_lower * sigmoid(b);
        d_m = inverse * (above - below);
        d_s = (has_upper * has_lower * width / growth + above * a - below * b) * slope;
        // 1 − e^−w without cancellation for a narrow bin.
        const T bin = -std::log(-std::expm1(-width));
        return has_upper * softplus_minus_a + has_lower * softplus_b + has_upper * has_lower * bin;
    }
};

template <class T>
LogisticPixel<T> pixel_of(const LogisticSettings& settings) {
    return {static_cast<T>(0.5 / (settings.levels - 1)), static_cast<T>(settings.least),
            static_cast<T>(settings.most)};
}

// The mean of the levels: each is passed with the probability of being above its upper edge.
template <class T>
VAE_CPU_INLINE T mean_of_levels(T m, T s, const LogisticPixel<T>& pixel, std::size_t steps) {
    T slope = 0;
    const T inverse = std::exp(-bounded(s, pixel.least, pixel.most, slope));
    const T step = 2 * pixel.half_bin;
    const T sum = row_sum<T>(steps, [=](std::size_t k) {
        return sigmoid((m - (static_cast<T>(k) + T(0.5)) * step) * inverse);
    });
    return sum / static_cast<T>(steps);
}

VAE_CPU_CLONES void mean_row(const LogisticPixel<float>& pixel, std::size_t steps, const float* m,
                             const float* s, std::size_t cols, float* mean) {
    for (std::size_t c = 0; c < cols; ++c) mean[c] = mean_of_levels(m[c], s[c], pixel, steps);
}

void mean_row(const LogisticPixel<double>& pixel, std::size_t steps, const double* m,
              const double* s, std::size_t cols, double* mean) {
    for (std::size_t c = 0; c < cols; ++c) mean[c] = mean_of_levels(m[c], s[c], pixel, steps);
}

}  // namespace

template <class T>
void logistic_forward(const LikelihoodInput<T>& in, const LogisticSettings& settings, T* recon) {
    pixels_forward(pixel_of<T>(settings), in, recon);
}

template <class T>
void logistic_forward_backward(const LikelihoodInput<T>& in, const LogisticSettings& settings,
                               const LikelihoodGradient<T>& gradient, T* recon) {
    pixels_forward_backward(pixel_of<T>(settings), in, gradient, recon);
}

template <class T>
void logistic_mean(const LikelihoodInput<T>& in, const LogisticSettings& settings, T* mean) {
    const auto pixel = pixel_of<T>(settings);
    const std::size_t steps = settings.levels - 1;
    for_each_row(in.rows, in.pixels * steps, [=](std::size_t r) {
        std::vector<T> outputs(2 * in.pixels);
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            outputs[i] = in.product[r * outputs.size() + i] + in.bias[i];
        }
        mean_row(pixel, steps, outputs.data(), outputs.data() + in.pixels, in.pixels,
                 mean + r * in.pixels);
    });
}

template void logistic_forward(const LikelihoodInput<float>&, const LogisticSettings&, float*);
template void logistic_forward(const LikelihoodInput<double>&, const LogisticSettings&, double*);
template void logistic_forward_backward(const LikelihoodInput<float>&, const LogisticSettings&,
                                        const LikelihoodGradient<float>&, float*);
template void logistic_forward_backward(const LikelihoodInput<double>&, const LogisticSettings&,
                                        const LikelihoodGradient<double>&, double*);
template void logistic_mean(const LikelihoodInput<float>&, const LogisticSettings&, float*);
template void logistic_mean(const LikelihoodInput<double>&, const LogisticSettings&, double*);

}  // namespace vae::cpu
