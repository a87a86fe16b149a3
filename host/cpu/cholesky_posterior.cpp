#include "host/cpu/cholesky_posterior.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

// Where row i of tril begins; also its size, for i = latent.
constexpr std::size_t row_start(std::size_t i) {
    return i == 0 ? 0 : i * (i - 1) / 2;
}

// NaN passes, so that it shows in the loss.
template <class T>
VAE_CPU_INLINE T clamped(T value, T low, T high) {
    const T raised = value < low ? low : value;
    return raised > high ? high : raised;
}

template <class T>
std::size_t width_of(const CholeskyHeads<T>& in) {
    return 2 * in.heads.stride + in.tril_stride;
}

// An example's mu, logvar and tril; returns kl.
template <class T>
VAE_CPU_INLINE T posterior_row(const CholeskyHeads<T>& in, std::size_t b, T* mu_row, T* logvar_row,
                               T* tril_row) {
    const HeadsView<T>& heads = in.heads;
    const std::size_t stride = heads.stride;
    const T* product = heads.product + b * (2 * stride + in.tril_stride);
    const T low = heads.logvar_min;
    const T high = heads.logvar_max;
    const T* mu_bias = heads.mu_bias;
    const T* logvar_bias = heads.logvar_bias;
    const T of_diagonal = row_sum<T>(heads.latent, [=](std::size_t i) {
        const T mu = product[i] + mu_bias[i];
        const T logvar = clamped(product[stride + i] + logvar_bias[i], low, high);
        mu_row[i] = mu;
        logvar_row[i] = logvar;
        return mu * mu + std::expm1(logvar) - logvar;
    });
    const T* tril_product = product + 2 * stride;
    const T* tril_bias = in.tril_bias;
    const T of_tril = row_sum<T>(row_start(heads.latent), [=](std::size_t k) {
        const T l = tril_product[k] + tril_bias[k];
        tril_row[k] = l;
        return l * l;
    });
    return (of_diagonal + of_tril) / 2;
}

template <class T>
struct DrawTerms {
    T log_ratio;
    T log_q;
};

// One draw from the posterior of an example.
template <class T>
VAE_CPU_INLINE DrawTerms<T> draw_row(std::size_t latent, const T* mu, const T* logvar,
                                     const T* tril, const T* epsilon, T* z_row) {
    for (std::size_t i = 0; i < latent; ++i) {
        const T* row = tril + row_start(i);
        z_row[i] = row_sum<T>(i, [=](std::size_t j) { return row[j] * epsilon[j]; });
    }
    const T twice_ratio = row_sum<T>(latent, [=](std::size_t i) {
        const T half = logvar[i] / 2;
        const T below = z_row[i];
        const T z = mu[i] + (std::exp(half) * epsilon[i] + below);
        z_row[i] = z;
        return (mu[i] + (std::expm1(half) * epsilon[i] + below)) * (z + epsilon[i]) - logvar[i];
    });
    const T log_2_pi = std::log(2 * std::numbers::pi_v<T>);
    const T minus_twice_log_q = row_sum<T>(
        latent, [=](std::size_t i) { return epsilon[i] * epsilon[i] + (logvar[i] + log_2_pi); });
    return {twice_ratio / 2, -minus_twice_log_q / 2};
}

// Of one example: its rows, from its first draw on, and where its gradient goes.
template <class T>
struct BackwardRow {
    CholeskySaved<T> saved;
    LatentGradient<T> gradient;
    const T* logvar_product;
    T* d_product;
    T* sums;  // as long as d_product, added to
    T* u;     // [latent], overwritten, as the next
    T* g;
};

// u = L⁻ᵀ·epsilon, from the last element on.
template <class T>
VAE_CPU_INLINE void solve_transposed(std::size_t latent, const T* logvar, const T* tril,
                                     const T* epsilon, T* u) {
    std::copy_n(epsilon, latent, u);
    for (std::size_t i = latent; i-- > 0;) {
        const T solved = u[i] * std::exp(-logvar[i] / 2);
        u[i] = solved;
        const T* row = tril + row_start(i);
#pragma omp simd
        for (std::size_t j = 0; j < i; ++j) u[j] -= row[j] * solved;
    }
}

// g of draw s.
template <class T>
VAE_CPU_INLINE void draw_gradient(std::size_t latent, std::size_t s, const BackwardRow<T>& row) {
    const LatentGradient<T>& gradient = row.gradient;
    const T path = gradient.path[s];
    const T ratio = static_cast<T>(gradient.scale) * gradient.ratio[s];
    const T score = static_cast<T>(gradient.scale) * gradient.score[s];
    const T* d_z = gradient.d_z + s * latent;
    T* u = row.u;
    T* g = row.g;
    for (std::size_t i = 0; i < latent; ++i) g[i] = path * d_z[i];
    const T* z = row.saved.z + s * latent;
    const T* prior = gradient.prior_score == nullptr ? nullptr : gradient.prior_score + s * latent;
    if (ratio != 0) {
        for (std::size_t i = 0; i < latent; ++i) {
            g[i] += ratio * (prior == nullptr ? z[i] : -prior[i]);
        }
    }
    // Where they are equal, as in all but DReG's and the score function's gradients, u cancels.
    if (ratio == score) return;
    solve_transposed(latent, row.saved.logvar, row.saved.tril, row.saved.epsilon + s * latent, u);
    for (std::size_t i = 0; i < latent; ++i) g[i] += (score - ratio) * u[i];
}

// Adds draw s to the gradients: of log-variance that of 2·logvar, without its clamp.
template <class T>
VAE_CPU_INLINE void add_draw(const HeadsView<T>& heads, std::size_t s, const BackwardRow<T>& row) {
    const std::size_t latent = heads.latent;
    const T* epsilon = row.saved.epsilon + s * latent;
    const T* logvar = row.saved.logvar;
    const T* g = row.g;
    const T score = static_cast<T>(row.gradient.scale) * row.gradient.score[s];
    T* d_mu = row.d_product;
    T* d_logvar = d_mu + heads.stride;
#pragma omp simd
    for (std::size_t i = 0; i < latent; ++i) {
        d_mu[i] += g[i];
        d_logvar[i] += g[i] * std::exp(logvar[i] / 2) * epsilon[i] - score;
    }
    for (std::size_t i = 1; i < latent; ++i) {
        T* d_row = d_mu + 2 * heads.stride + row_start(i);
        const T own = g[i];
#pragma omp simd
        for (std::size_t j = 0; j < i; ++j) d_row[j] += own * epsilon[j];
    }
}

// The closed KL's part, before the draws are added.
template <class T>
VAE_CPU_INLINE void start_row(const CholeskyHeads<T>& in, const BackwardRow<T>& row) {
    const std::size_t latent = in.heads.latent;
    const auto kl_scale = static_cast<T>(row.gradient.kl_scale);
    const T* kl_mask = row.gradient.kl_mask;
    T* d_mu = row.d_product;
    T* d_logvar = d_mu + in.heads.stride;
    T* d_tril = d_logvar + in.heads.stride;
    std::fill_n(d_mu, 2 * in.heads.stride + in.tril_stride, T(0));
    for (std::size_t i = 0; i < latent; ++i) {
        const T own = kl_scale * kl_mask[i];
        d_mu[i] = own * row.saved.mu[i];
        d_logvar[i] = own * std::expm1(row.saved.logvar[i]);
        const std::size_t start = row_start(i);
        for (std::size_t j = start; j < start + i; ++j) d_tril[j] = own * row.saved.tril[j];
    }
}

template <class T>
VAE_CPU_INLINE void backward_row(const CholeskyHeads<T>& in, const BackwardRow<T>& row) {
    const HeadsView<T>& heads = in.heads;
    start_row(in, row);
    for (std::size_t s = 0; s < heads.samples; ++s) {
        draw_gradient(heads.latent, s, row);
        add_draw(heads, s, row);
    }
    T* d_logvar = row.d_product + heads.stride;
    for (std::size_t i = 0; i < heads.latent; ++i) {
        const T unclamped = row.logvar_product[i] + heads.logvar_bias[i];
        const bool outside = unclamped < heads.logvar_min || unclamped > heads.logvar_max;
        d_logvar[i] = outside ? T(0) : d_logvar[i] / 2;
    }
    const std::size_t width = 2 * heads.stride + in.tril_stride;
#pragma omp simd
    for (std::size_t c = 0; c < width; ++c) row.sums[c] += row.d_product[c];
}

VAE_CPU_CLONES float posterior(const CholeskyHeads<float>& heads, std::size_t b, float* mu,
                               float* logvar, float* tril) {
    return posterior_row(heads, b, mu, logvar, tril);
}

double posterior(const CholeskyHeads<double>& heads, std::size_t b, double* mu, double* logvar,
                 double* tril) {
    return posterior_row(heads, b, mu, logvar, tril);
}

VAE_CPU_CLONES DrawTerms<float> draw(std::size_t latent, const float* mu, const float* logvar,
                                     const float* tril, const float* epsilon, float* z) {
    return draw_row(latent, mu, logvar, tril, epsilon, z);
}

DrawTerms<double> draw(std::size_t latent, const double* mu, const double* logvar,
                       const double* tril, const double* epsilon, double* z) {
    return draw_row(latent, mu, logvar, tril, epsilon, z);
}

VAE_CPU_CLONES void backward(const CholeskyHeads<float>& heads, const BackwardRow<float>& row) {
    backward_row(heads, row);
}

void backward(const CholeskyHeads<double>& heads, const BackwardRow<double>& row) {
    backward_row(heads, row);
}

// What belongs to example b.
template <class T>
BackwardRow<T> row_of(const CholeskyHeads<T>& in, const CholeskySaved<T>& saved,
                      const LatentGradient<T>& gradient, const CholeskyGradients<T>& to,
                      std::size_t chunk, std::size_t b) {
    const std::size_t latent = in.heads.latent;
    const std::size_t width = width_of(in);
    const std::size_t r = b * in.heads.samples;
    BackwardRow<T> row{saved,
                       gradient,
                       in.heads.product + b * width + in.heads.stride,
                       to.d_product + b * width,
                       to.partials + chunk * width,
                       to.draw + chunk * 2 * latent,
                       to.draw + (chunk * 2 + 1) * latent};
    row.saved.epsilon += r * latent;
    row.saved.z += r * latent;
    row.saved.mu += b * latent;
    row.saved.logvar += b * latent;
    row.saved.tril += b * row_start(latent);
    row.gradient.d_z += r * latent;
    row.gradient.path += r;
    row.gradient.ratio += r;
    row.gradient.score += r;
    if (gradient.prior_score != nullptr) row.gradient.prior_score += r * latent;
    return row;
}

}  // namespace

template <class T>
void cholesky_forward(const CholeskyHeads<T>& heads, const T* epsilon,
                      const CholeskyDraws<T>& draws) {
    const std::size_t latent = heads.heads.latent;
    const std::size_t samples = heads.heads.samples;
    const std::size_t tril_size = row_start(latent);
    for_each_chunk(heads.heads.examples, (latent + tril_size) * samples,
                   [=](std::size_t, std::size_t first, std::size_t last) {
                       for (std::size_t b = first; b < last; ++b) {
                           T* mu = draws.mu + b * latent;
                           T* logvar = draws.logvar + b * latent;
                           T* tril = draws.tril + b * tril_size;
                           draws.kl[b] = posterior(heads, b, mu, logvar, tril);
                           for (std::size_t r = b * samples; r < (b + 1) * samples; ++r) {
                               const DrawTerms<T> terms =
                                   draw(latent, mu, logvar, tril, epsilon + r * latent,
                                        draws.z + r * latent);
                               if (draws.log_ratio != nullptr) draws.log_ratio[r] = terms.log_ratio;
                               if (draws.log_q != nullptr) draws.log_q[r] = terms.log_q;
                           }
                       }
                   });
}

template <class T>
void cholesky_backward(const CholeskyHeads<T>& heads, const CholeskySaved<T>& saved,
                       const LatentGradient<T>& gradient, const CholeskyGradients<T>& to) {
    const std::size_t latent = heads.heads.latent;
    const std::size_t tril_size = row_start(latent);
    const std::size_t stride = heads.heads.stride;
    const std::size_t width = width_of(heads);
    for_each_chunk(heads.heads.examples, (latent + tril_size) * heads.heads.samples,
                   [=](std::size_t chunk, std::size_t first, std::size_t last) {
                       std::fill_n(to.partials + chunk * width, width, T(0));
                       for (std::size_t b = first; b < last; ++b) {
                           backward(heads, row_of(heads, saved, gradient, to, chunk, b));
                       }
                   });
    const std::size_t chunks = chunk_count(heads.heads.examples);
    add_chunks(to.partials, chunks, width, latent, to.d_mu_bias);
    add_chunks(to.partials + stride, chunks, width, latent, to.d_logvar_bias);
    add_chunks(to.partials + 2 * stride, chunks, width, tril_size, to.d_tril_bias);
}

template void cholesky_forward(const CholeskyHeads<float>&, const float*,
                               const CholeskyDraws<float>&);
template void cholesky_forward(const CholeskyHeads<double>&, const double*,
                               const CholeskyDraws<double>&);
template void cholesky_backward(const CholeskyHeads<float>&, const CholeskySaved<float>&,
                                const LatentGradient<float>&, const CholeskyGradients<float>&);
template void cholesky_backward(const CholeskyHeads<double>&, const CholeskySaved<double>&,
                                const LatentGradient<double>&, const CholeskyGradients<double>&);

}  // namespace vae::cpu
