#include "host/cpu/reparameterize.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

// NaN passes, so that it shows in the loss.
template <class T>
VAE_CPU_INLINE T clamped(T value, T low, T high) {
    const T raised = value < low ? low : value;
    return raised > high ? high : raised;
}

// An example's mu and logvar; returns kl.
template <class T>
VAE_CPU_INLINE T posterior_row(const HeadsView<T>& heads, std::size_t b, T* mu_row, T* logvar_row) {
    const T* product = heads.product + b * 2 * heads.stride;
    const T low = heads.logvar_min;
    const T high = heads.logvar_max;
    const T* mu_bias = heads.mu_bias;
    const T* logvar_bias = heads.logvar_bias;
    const std::size_t stride = heads.stride;
    const T sum = row_sum<T>(heads.latent, [=](std::size_t j) {
        const T mu = product[j] + mu_bias[j];
        const T logvar = clamped(product[stride + j] + logvar_bias[j], low, high);
        mu_row[j] = mu;
        logvar_row[j] = logvar;
        return mu * mu + std::expm1(logvar) - logvar;
    });
    return sum / 2;
}

// One draw from the posterior of an example; returns log q(z|x) − log p(z).
template <class T>
VAE_CPU_INLINE T draw_row(std::size_t latent, const T* mu, const T* logvar, const T* epsilon,
                          T* z_row) {
    const T sum = row_sum<T>(latent, [=](std::size_t j) {
        const T half = logvar[j] / 2;
        const T z = mu[j] + std::exp(half) * epsilon[j];
        z_row[j] = z;
        return (mu[j] + std::expm1(half) * epsilon[j]) * (z + epsilon[j]) - logvar[j];
    });
    return sum / 2;
}

// Of one example: its draws' rows, and where its gradient goes. d_product may be the example's row
// of heads.product.
template <class T>
struct BackwardRow {
    const T* epsilon;
    LatentGradient<T> gradient;  // arrays from the example's first draw on
    T* d_product;
    T* sums;  // [2·stride], added to
};

// Samples is a constant where there is one draw, so that the loop over j can be vectorised.
// minus_prior_score(element of a draw's row, z) is −∂ log p(z)/∂z.
template <class T, class Samples, class MinusPriorScore>
VAE_CPU_INLINE void backward_row(const HeadsView<T>& heads, std::size_t b, Samples samples,
                                 MinusPriorScore minus_prior_score, const BackwardRow<T>& row) {
    const T* product = heads.product + b * 2 * heads.stride;
    const std::size_t stride = heads.stride;
    const std::size_t latent = heads.latent;
    const LatentGradient<T> gradient = row.gradient;
    const auto scale = static_cast<T>(gradient.scale);
    const auto kl_scale_of_all = static_cast<T>(gradient.kl_scale);
#pragma omp simd
    for (std::size_t j = 0; j < latent; ++j) {
        const T mu = product[j] + heads.mu_bias[j];
        const T unclamped = product[stride + j] + heads.logvar_bias[j];
        const T logvar = clamped(unclamped, heads.logvar_min, heads.logvar_max);
        const bool outside = unclamped < heads.logvar_min || unclamped > heads.logvar_max;
        const T sigma = std::exp(logvar / 2);
        const T kl_scale = kl_scale_of_all * gradient.kl_mask[j];
        T d_mu = kl_scale * mu;
        T d_logvar = kl_scale * std::expm1(logvar);
        for (std::size_t s = 0; s < samples; ++s) {
            const T epsilon = row.epsilon[s * latent + j];
            const T z = mu + sigma * epsilon;
            const T score = scale * gradient.score[s];
            const T d = gradient.path[s] * gradient.d_z[s * latent + j] +
                        scale * gradient.ratio[s] *
                            (minus_prior_score(s * latent + j, z) - epsilon / sigma);
            d_mu += d + score * epsilon / sigma;
            d_logvar += d * sigma * epsilon + score * (epsilon * epsilon - 1);
        }
        d_logvar = outside ? T(0) : d_logvar / 2;
        row.d_product[j] = d_mu;
        row.d_product[stride + j] = d_logvar;
        row.sums[j] += d_mu;
        row.sums[stride + j] += d_logvar;
    }
    for (std::size_t j = latent; j < stride; ++j) {
        row.d_product[j] = 0;
        row.d_product[stride + j] = 0;
    }
}

template <class T, class Samples>
VAE_CPU_INLINE void backward_row(const HeadsView<T>& heads, std::size_t b, Samples samples,
                                 const BackwardRow<T>& row) {
    const T* prior_score = row.gradient.prior_score;
    if (prior_score == nullptr) {
        backward_row(
            heads, b, samples, [](std::size_t, T z) { return z; }, row);
    } else {
        backward_row(
            heads, b, samples, [=](std::size_t at, T) { return -prior_score[at]; }, row);
    }
}

template <class T>
VAE_CPU_INLINE void backward_row(const HeadsView<T>& heads, std::size_t b,
                                 const BackwardRow<T>& row) {
    if (heads.samples == 1) {
        backward_row(heads, b, std::integral_constant<std::size_t, 1>(), row);
    } else {
        backward_row(heads, b, heads.samples, row);
    }
}

VAE_CPU_CLONES float posterior(const HeadsView<float>& heads, std::size_t b, float* mu,
                               float* logvar) {
    return posterior_row(heads, b, mu, logvar);
}

double posterior(const HeadsView<double>& heads, std::size_t b, double* mu, double* logvar) {
    return posterior_row(heads, b, mu, logvar);
}

VAE_CPU_CLONES float draw(std::size_t latent, const float* mu, const float* logvar,
                          const float* epsilon, float* z) {
    return draw_row(latent, mu, logvar, epsilon, z);
}

double draw(std::size_t latent, const double* mu, const double* logvar, const double* epsilon,
            double* z) {
    return draw_row(latent, mu, logvar, epsilon, z);
}

VAE_CPU_CLONES void backward(const HeadsView<float>& heads, std::size_t b,
                             const BackwardRow<float>& row) {
    backward_row(heads, b, row);
}

void backward(const HeadsView<double>& heads, std::size_t b, const BackwardRow<double>& row) {
    backward_row(heads, b, row);
}

}  // namespace

template <class T>
void reparameterize_forward(const HeadsView<T>& heads, const T* epsilon, T* mu, T* logvar, T* z,
                            T* kl, T* log_ratio) {
    const std::size_t latent = heads.latent;
    const std::size_t samples = heads.samples;
    for_each_chunk(
        heads.examples, latent * samples, [=](std::size_t, std::size_t first, std::size_t last) {
            for (std::size_t b = first; b < last; ++b) {
                T* mu_row = mu + b * latent;
                T* logvar_row = logvar + b * latent;
                kl[b] = posterior(heads, b, mu_row, logvar_row);
                for (std::size_t r = b * samples; r < (b + 1) * samples; ++r) {
                    log_ratio[r] =
                        draw(latent, mu_row, logvar_row, epsilon + r * latent, z + r * latent);
                }
            }
        });
}

template <class T>
void reparameterize_backward(const HeadsView<T>& heads, const T* epsilon,
                             const LatentGradient<T>& gradient, T* d_product, T* d_mu_bias,
                             T* d_logvar_bias, T* partials) {
    const std::size_t latent = heads.latent;
    const std::size_t samples = heads.samples;
    const std::size_t width = 2 * heads.stride;
    for_each_chunk(heads.examples, latent * samples,
                   [=](std::size_t chunk, std::size_t first, std::size_t last) {
                       T* sums = partials + chunk * width;
                       std::fill_n(sums, width, T(0));
                       for (std::size_t b = first; b < last; ++b) {
                           const std::size_t r = b * samples;
                           LatentGradient<T> of_example = gradient;
                           of_example.d_z += r * latent;
                           of_example.path += r;
                           of_example.ratio += r;
                           of_example.score += r;
                           if (of_example.prior_score != nullptr) {
                               of_example.prior_score += r * latent;
                           }
                           backward(heads, b,
                                    BackwardRow<T>{epsilon + r * latent, of_example,
                                                   d_product + b * width, sums});
                       }
                   });
    const std::size_t chunks = chunk_count(heads.examples);
    add_chunks(partials, chunks, width, latent, d_mu_bias);
    add_chunks(partials + heads.stride, chunks, width, latent, d_logvar_bias);
}

template void reparameterize_forward(const HeadsView<float>&, const float*, float*, float*, float*,
                                     float*, float*);
template void reparameterize_forward(const HeadsView<double>&, const double*, double*, double*,
                                     double*, double*, double*);
template void reparameterize_backward(const HeadsView<float>&, const float*,
                                      const LatentGradient<float>&, float*, float*, float*, float*);
template void reparameterize_backward(const HeadsView<double>&, const double*,
                                      const LatentGradient<double>&, double*, double*, double*,
                                      double*);

}  // namespace vae::cpu
