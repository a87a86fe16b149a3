#include "host/cpu/reparameterize.h"

#include <algorithm>
#include <cmath>

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

template <class T>
struct ForwardRow {
    const T* epsilon;
    T* mu;
    T* logvar;
    T* z;
};

template <class T>
VAE_CPU_INLINE T forward_row(const HeadsView<T>& heads, std::size_t r, const ForwardRow<T>& out) {
    const T* product = heads.product + r * 2 * heads.stride;
    const T low = heads.logvar_min;
    const T high = heads.logvar_max;
    const T* mu_bias = heads.mu_bias;
    const T* logvar_bias = heads.logvar_bias;
    const std::size_t stride = heads.stride;
    const T sum = row_sum<T>(heads.latent, [=](std::size_t j) {
        const T mu = product[j] + mu_bias[j];
        const T logvar = clamped(product[stride + j] + logvar_bias[j], low, high);
        out.mu[j] = mu;
        out.logvar[j] = logvar;
        out.z[j] = mu + std::exp(logvar / 2) * out.epsilon[j];
        return mu * mu + std::expm1(logvar) - logvar;
    });
    return sum / 2;
}

template <class T>
struct BackwardRow {
    const T* epsilon;
    const T* d_z;
    T kl_scale;
    T* d_product;
    T* sums;  // [2·stride], added to
};

template <class T>
VAE_CPU_INLINE void backward_row(const HeadsView<T>& heads, std::size_t r,
                                 const BackwardRow<T>& out) {
    const T* product = heads.product + r * 2 * heads.stride;
    const std::size_t stride = heads.stride;
#pragma omp simd
    for (std::size_t j = 0; j < heads.latent; ++j) {
        const T mu = product[j] + heads.mu_bias[j];
        const T unclamped = product[stride + j] + heads.logvar_bias[j];
        const T logvar = clamped(unclamped, heads.logvar_min, heads.logvar_max);
        const bool outside = unclamped < heads.logvar_min || unclamped > heads.logvar_max;
        const T d_logvar = (out.d_z[j] * out.epsilon[j] * std::exp(logvar / 2) +
                            out.kl_scale * std::expm1(logvar)) /
                           2;
        const T d_mu = out.d_z[j] + out.kl_scale * mu;
        out.d_product[j] = d_mu;
        out.d_product[stride + j] = outside ? T(0) : d_logvar;
        out.sums[j] += d_mu;
        out.sums[stride + j] += outside ? T(0) : d_logvar;
    }
    for (std::size_t j = heads.latent; j < stride; ++j) {
        out.d_product[j] = 0;
        out.d_product[stride + j] = 0;
    }
}

VAE_CPU_CLONES float forward(const HeadsView<float>& heads, std::size_t r,
                             const ForwardRow<float>& out) {
    return forward_row(heads, r, out);
}

double forward(const HeadsView<double>& heads, std::size_t r, const ForwardRow<double>& out) {
    return forward_row(heads, r, out);
}

VAE_CPU_CLONES void backward(const HeadsView<float>& heads, std::size_t r,
                             const BackwardRow<float>& out) {
    backward_row(heads, r, out);
}

void backward(const HeadsView<double>& heads, std::size_t r, const BackwardRow<double>& out) {
    backward_row(heads, r, out);
}

}  // namespace

template <class T>
void reparameterize_forward(const HeadsView<T>& heads, const T* epsilon, T* mu, T* logvar, T* z,
                            T* kl) {
    const std::size_t latent = heads.latent;
    for_each_chunk(heads.rows, latent, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            const std::size_t at = r * latent;
            kl[r] = forward(heads, r, ForwardRow<T>{epsilon + at, mu + at, logvar + at, z + at});
        }
    });
}

template <class T>
void reparameterize_backward(const HeadsView<T>& heads, const T* epsilon, const T* d_z,
                             double kl_scale, T* d_product, T* d_mu_bias, T* d_logvar_bias,
                             T* partials) {
    const std::size_t latent = heads.latent;
    const std::size_t width = 2 * heads.stride;
    const auto scale = static_cast<T>(kl_scale);
    for_each_chunk(heads.rows, latent, [=](std::size_t chunk, std::size_t first, std::size_t last) {
        T* sums = partials + chunk * width;
        std::fill_n(sums, width, T(0));
        for (std::size_t r = first; r < last; ++r) {
            const std::size_t at = r * latent;
            backward(heads, r,
                     BackwardRow<T>{epsilon + at, d_z + at, scale, d_product + r * width, sums});
        }
    });
    const std::size_t chunks = chunk_count(heads.rows);
    add_chunks(partials, chunks, width, latent, d_mu_bias);
    add_chunks(partials + heads.stride, chunks, width, latent, d_logvar_bias);
}

template void reparameterize_forward(const HeadsView<float>&, const float*, float*, float*, float*,
                                     float*);
template void reparameterize_forward(const HeadsView<double>&, const double*, double*, double*,
                                     double*, double*);
template void reparameterize_backward(const HeadsView<float>&, const float*, const float*, double,
                                      float*, float*, float*, float*);
template void reparameterize_backward(const HeadsView<double>&, const double*, const double*,
                                      double, double*, double*, double*, double*);

}  // namespace vae::cpu
