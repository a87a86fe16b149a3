// A Gaussian posterior q(z|x) = N(mu, L·Lᵀ) with a full covariance: z = mu + L·epsilon, its KL
// divergence to N(0, I), and their backward (Kingma & Welling 2019, An introduction to variational
// autoencoders, section 2.5.1). T is float or double.
//
// L is lower triangular: L_ii = exp(logvar_i/2), and below the diagonal it is `tril`, row by row:
// entry (i, j), i > j, is element i·(i−1)/2 + j. Draws are laid out as in reparameterize.h.
#pragma once

#include <cstddef>

#include "host/cpu/reparameterize.h"

namespace vae::cpu {

// The joint product of the three heads: heads.product[examples, 2·stride + tril_stride], mu and
// log-variance as in HeadsView, tril in columns [2·stride, 2·stride + latent·(latent − 1)/2).
template <class T>
struct CholeskyHeads {
    HeadsView<T> heads;
    const T* tril_bias = nullptr;
    std::size_t tril_stride = 0;
};

// What the forward writes. log_ratio and log_q may be null.
template <class T>
struct CholeskyDraws {
    T* mu = nullptr;         // [examples, latent]
    T* logvar = nullptr;     // [examples, latent]
    T* tril = nullptr;       // [examples, latent·(latent − 1)/2]
    T* z = nullptr;          // [examples·samples, latent]
    T* kl = nullptr;         // [examples]
    T* log_ratio = nullptr;  // [examples·samples]
    T* log_q = nullptr;      // [examples·samples]
};

// Computes  mu, logvar (clamped) and tril = product + bias
//           kl[b] = ½ Σ_i (mu_i² + expm1(logvar_i) − logvar_i + Σ_{j<i} L_ij²)
//           z[r] = mu + L·epsilon[r]
//           log_q[r] = log q(z[r]|x) = −½ Σ_i (epsilon_i² + logvar_i + log 2π)
//           log_ratio[r] = log q(z[r]|x) − log N(z[r]; 0, I) = ½ Σ_i (z_i² − epsilon_i² −
//           logvar_i), with z_i² − epsilon_i² as (mu + (L − I)·epsilon)_i·(z + epsilon)_i: next to
//           the prior the difference of the squares would cancel
// Shapes    epsilon[examples·samples, latent]; others as in CholeskyDraws
template <class T>
void cholesky_forward(const CholeskyHeads<T>& heads, const T* epsilon,
                      const CholeskyDraws<T>& draws);

// What the forward left, in the backward.
template <class T>
struct CholeskySaved {
    const T* epsilon = nullptr;
    const T* mu = nullptr;
    const T* logvar = nullptr;
    const T* tril = nullptr;
    const T* z = nullptr;
};

template <class T>
struct CholeskyGradients {
    T* d_product = nullptr;  // [examples, 2·stride + tril_stride], padding zero
    T* d_mu_bias = nullptr;  // these column sums
    T* d_logvar_bias = nullptr;
    T* d_tril_bias = nullptr;
    T* partials = nullptr;  // [chunk_count(examples), 2·stride + tril_stride] is overwritten
    T* draw = nullptr;      // [chunk_count(examples), 2·latent] is overwritten
};

// Computes  with u = L⁻ᵀ·epsilon (the score of mu), for each draw
//             g = path·d_z + scale·ratio·(−prior_score − u) + scale·score·u
//           and, sums over an example's draws,
//             d_mu     = Σ g + kl_scale·kl_mask·mu
//             d_L_ij   = Σ g_i·epsilon_j + kl_scale·kl_mask_i·L_ij,  i > j
//             d_logvar = ½ (Σ (g·epsilon·exp(logvar/2) − scale·score)
//                           + kl_scale·kl_mask·expm1(logvar)),
//           zero where the unclamped log-variance lies outside [min, max]
// Shapes    as in the structs; nothing may overlap
template <class T>
void cholesky_backward(const CholeskyHeads<T>& heads, const CholeskySaved<T>& saved,
                       const LatentGradient<T>& gradient, const CholeskyGradients<T>& to);

}  // namespace vae::cpu
