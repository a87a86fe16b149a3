#include "host/cpu/mixture_prior.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

constexpr std::size_t kStripe = 64;  // latent elements whose sums are held at once

template <class T>
T unclamped_logvar(const MixtureSource<T>& source, std::size_t k, std::size_t j) {
    const T bias = source.logvar_bias == nullptr ? T(0) : source.logvar_bias[j];
    return source.logvar[k * source.row_stride + j] + bias;
}

// log Σ exp(logits), from the largest on.
template <class T>
double log_total(const T* logits, std::size_t count) {
    const auto top = static_cast<double>(*std::max_element(logits, logits + count));
    double sum = 0;
    for (std::size_t k = 0; k < count; ++k) sum += std::exp(static_cast<double>(logits[k]) - top);
    return top + std::log(sum);
}

// a_k
template <class T>
VAE_CPU_INLINE T exponent_row(const MixtureSource<T>& source,
                              const MixtureComponents<T>& components, std::size_t k, const T* z) {
    const T* mean = components.mean + k * source.latent;
    const T* inverse_sigma = components.inverse_sigma + k * source.latent;
    const T* excess = components.excess + k * source.latent;
    const T sum = row_sum<T>(source.latent, [=](std::size_t j) {
        const T s = inverse_sigma[j];
        return (s * mean[j] + excess[j] * z[j]) * (z[j] + s * (z[j] - mean[j]));
    });
    return components.offset[k] + sum / 2;
}

template <class T>
VAE_CPU_INLINE void exponents_row(const MixtureSource<T>& source,
                                  const MixtureComponents<T>& components, const T* z, T* a) {
    for (std::size_t k = 0; k < source.components; ++k) {
        a[k] = exponent_row(source, components, k, z);
    }
}

template <class T>
VAE_CPU_INLINE void score_row(const MixtureSource<T>& source,
                              const MixtureComponents<T>& components, const T* z, const T* gamma,
                              T* score) {
    const std::size_t latent = source.latent;
    for (std::size_t begin = 0; begin < latent; begin += kStripe) {
        const std::size_t width = std::min(kStripe, latent - begin);
        double total[kStripe] = {};
        for (std::size_t k = 0; k < source.components; ++k) {
            const T* mean = components.mean + k * latent + begin;
            const T* s = components.inverse_sigma + k * latent + begin;
            const T of_k = gamma[k];
#pragma omp simd
            for (std::size_t c = 0; c < width; ++c) {
                total[c] += static_cast<double>(of_k * (s[c] * s[c]) * (mean[c] - z[begin + c]));
            }
        }
        for (std::size_t c = 0; c < width; ++c) score[begin + c] = static_cast<T>(total[c]);
    }
}

// One component's part of the gradient: its means and log-variances.
template <class T>
VAE_CPU_INLINE void component_row(const MixtureSource<T>& source,
                                  const MixtureComponents<T>& components,
                                  const MixtureRows<T>& rows, std::size_t k,
                                  const MixtureGradient<T>& gradient) {
    const std::size_t latent = source.latent;
    const auto scale = static_cast<T>(rows.scale);
    for (std::size_t begin = 0; begin < latent; begin += kStripe) {
        const std::size_t width = std::min(kStripe, latent - begin);
        const T* mean = components.mean + k * latent + begin;
        const T* s = components.inverse_sigma + k * latent + begin;
        double d_mean[kStripe] = {};
        double d_logvar[kStripe] = {};
        for (std::size_t r = 0; r < rows.rows; ++r) {
            const T a = scale * rows.weight[r] * rows.gamma[r * source.components + k];
            const T* z = rows.z + r * latent + begin;
#pragma omp simd
            for (std::size_t c = 0; c < width; ++c) {
                const T d = z[c] - mean[c];
                const T pull = s[c] * s[c] * d;
                d_mean[c] -= static_cast<double>(a * pull);
                d_logvar[c] -= static_cast<double>(a * (pull * d - 1));
            }
        }
        for (std::size_t c = 0; c < width; ++c) {
            const T logvar = unclamped_logvar(source, k, begin + c);
            const bool outside = logvar < source.logvar_min || logvar > source.logvar_max;
            const std::size_t at = k * source.row_stride + begin + c;
            gradient.mean[at] = static_cast<T>(d_mean[c]);
            gradient.logvar[at] = outside ? T(0) : static_cast<T>(d_logvar[c] / 2);
        }
    }
}

VAE_CPU_CLONES void exponents(const MixtureSource<float>& source,
                              const MixtureComponents<float>& components, const float* z,
                              float* a) {
    exponents_row(source, components, z, a);
}
void exponents(const MixtureSource<double>& source, const MixtureComponents<double>& components,
               const double* z, double* a) {
    exponents_row(source, components, z, a);
}

VAE_CPU_CLONES void score(const MixtureSource<float>& source,
                          const MixtureComponents<float>& components, const float* z,
                          const float* gamma, float* out) {
    score_row(source, components, z, gamma, out);
}
void score(const MixtureSource<double>& source, const MixtureComponents<double>& components,
           const double* z, const double* gamma, double* out) {
    score_row(source, components, z, gamma, out);
}

VAE_CPU_CLONES void component(const MixtureSource<float>& source,
                              const MixtureComponents<float>& components,
                              const MixtureRows<float>& rows, std::size_t k,
                              const MixtureGradient<float>& gradient) {
    component_row(source, components, rows, k, gradient);
}
void component(const MixtureSource<double>& source, const MixtureComponents<double>& components,
               const MixtureRows<double>& rows, std::size_t k,
               const MixtureGradient<double>& gradient) {
    component_row(source, components, rows, k, gradient);
}

// log Σ pi_k exp(a_k), which is returned; a_k becomes gamma_k.
template <class T>
double normalise(const double* log_weight, std::size_t count, T* a) {
    const auto exponent = [=](std::size_t k) { return static_cast<double>(a[k]) + log_weight[k]; };
    double top = exponent(0);  // a NaN comes back with the sum
    for (std::size_t k = 1; k < count; ++k) top = std::max(top, exponent(k));
    double total = 0;
    for (std::size_t k = 0; k < count; ++k) {
        const double term = std::exp(exponent(k) - top);
        total += term;
        a[k] = static_cast<T>(term);
    }
    for (std::size_t k = 0; k < count; ++k)
        a[k] = static_cast<T>(static_cast<double>(a[k]) / total);
    return top + std::log(total);
}

template <class T>
T d_logit(const MixtureRows<T>& rows, std::size_t components, std::size_t k, double weight) {
    double sum = 0;
    for (std::size_t r = 0; r < rows.rows; ++r) {
        const double difference = static_cast<double>(rows.gamma[r * components + k]) - weight;
        sum -= static_cast<double>(rows.weight[r]) * difference;
    }
    return static_cast<T>(rows.scale * sum);
}

// sums[j] += Σ over components
template <class T>
void add_rows(const MixtureSource<T>& source, const T* values, T* sums) {
    for (std::size_t j = 0; j < source.latent; ++j) {
        double sum = static_cast<double>(sums[j]);
        for (std::size_t k = 0; k < source.components; ++k) {
            sum += static_cast<double>(values[k * source.row_stride + j]);
        }
        sums[j] = static_cast<T>(sum);
    }
}

}  // namespace

template <class T>
void mixture_components(const MixtureSource<T>& source, const MixtureComponents<T>& out) {
    const std::size_t latent = source.latent;
    const bool is_learned = source.logits != nullptr;
    const double total = is_learned ? log_total(source.logits, source.components)
                                    : std::log(static_cast<double>(source.components));
    for (std::size_t k = 0; k < source.components; ++k) {
        const double logit = is_learned ? static_cast<double>(source.logits[k]) : 0;
        double sum = 0;
        for (std::size_t j = 0; j < latent; ++j) {
            const T bias = source.mean_bias == nullptr ? T(0) : source.mean_bias[j];
            // NaN passes.
            const T unclamped = unclamped_logvar(source, k, j);
            const T raised = unclamped < source.logvar_min ? source.logvar_min : unclamped;
            const T logvar = raised > source.logvar_max ? source.logvar_max : raised;
            out.mean[k * latent + j] = source.mean[k * source.row_stride + j] + bias;
            out.inverse_sigma[k * latent + j] = std::exp(-logvar / 2);
            out.excess[k * latent + j] = -std::expm1(-logvar / 2);
            sum += static_cast<double>(logvar);
        }
        out.offset[k] = static_cast<T>(-sum / 2);
        out.log_weight[k] = logit - total;
    }
}

template <class T>
void mixture_forward(const MixtureSource<T>& source, const MixtureComponents<T>& components,
                     const T* z, std::size_t rows, const MixtureOutputs<T>& out) {
    const std::size_t latent = source.latent;
    const std::size_t count = source.components;
    for_each_chunk(rows, latent * count, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            T* gamma = out.gamma + r * count;
            exponents(source, components, z + r * latent, gamma);
            const double relative = normalise(components.log_weight, count, gamma);
            score(source, components, z + r * latent, gamma, out.score + r * latent);
            if (out.relative != nullptr) out.relative[r] = static_cast<T>(relative);
            if (out.log_ratio != nullptr) {
                const double ratio = static_cast<double>(out.log_ratio[r]) - relative;
                out.log_ratio[r] = static_cast<T>(ratio);
            }
        }
    });
}

template <class T>
void mixture_backward(const MixtureSource<T>& source, const MixtureComponents<T>& components,
                      const MixtureRows<T>& rows, const MixtureGradient<T>& gradient) {
    const std::size_t count = source.components;
    for_each_chunk(
        count, rows.rows * source.latent, [=](std::size_t, std::size_t first, std::size_t last) {
            for (std::size_t k = first; k < last; ++k) {
                component(source, components, rows, k, gradient);
                if (gradient.logits == nullptr) continue;
                gradient.logits[k] = d_logit<T>(rows, count, k, std::exp(components.log_weight[k]));
            }
        });
    if (gradient.mean_bias != nullptr) add_rows(source, gradient.mean, gradient.mean_bias);
    if (gradient.logvar_bias != nullptr) add_rows(source, gradient.logvar, gradient.logvar_bias);
}

template void mixture_components(const MixtureSource<float>&, const MixtureComponents<float>&);
template void mixture_components(const MixtureSource<double>&, const MixtureComponents<double>&);
template void mixture_forward(const MixtureSource<float>&, const MixtureComponents<float>&,
                              const float*, std::size_t, const MixtureOutputs<float>&);
template void mixture_forward(const MixtureSource<double>&, const MixtureComponents<double>&,
                              const double*, std::size_t, const MixtureOutputs<double>&);
template void mixture_backward(const MixtureSource<float>&, const MixtureComponents<float>&,
                               const MixtureRows<float>&, const MixtureGradient<float>&);
template void mixture_backward(const MixtureSource<double>&, const MixtureComponents<double>&,
                               const MixtureRows<double>&, const MixtureGradient<double>&);

}  // namespace vae::cpu
