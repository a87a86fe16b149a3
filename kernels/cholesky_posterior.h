// A Gaussian posterior q(z|x) = N(mu, L·Lᵀ) with a full covariance: z = mu + L·epsilon, its KL
// divergence to N(0, I), and their backward (Kingma & Welling 2019, An introduction to variational
// autoencoders, section 2.5.1).
//
// L is lower triangular: L_ii = exp(logvar_i/2), and below the diagonal it is `tril`, row by row:
// entry (i, j), i > j, is element i·(i−1)/2 + j. Draws are laid out as in reparameterize.h.
#pragma once

#include <cuda_runtime.h>

#include "kernels/reparameterize.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// More would not fit into the shared memory that a warp has here.
inline constexpr int kMostCholeskyLatent = 1024;

constexpr int tril_size(int latent) {
    return latent * (latent - 1) / 2;
}

// The joint product of the three heads: heads.product[examples, 2·stride + tril_stride], mu and
// log-variance as in HeadsView, tril in columns [2·stride, 2·stride + tril_size).
struct CholeskyHeads {
    HeadsView heads;
    const float* tril_bias = nullptr;  // [tril_size]
    int tril_stride = 0;
};

// All on the device; each but epsilon and z may be null, and is then not written.
struct CholeskyDraws {
    float* mu = nullptr;         // [examples, latent]
    float* logvar = nullptr;     // [examples, latent]
    float* tril = nullptr;       // [examples, tril_size]
    float* kl = nullptr;         // [examples]
    float* epsilon = nullptr;    // [examples·samples, latent]
    float* z = nullptr;          // [examples·samples, latent]
    float* log_ratio = nullptr;  // [examples·samples]
    float* log_q = nullptr;      // [examples·samples]
    Bf16* rounded_z = nullptr;   // as z: z in bf16
};

// Computes  mu, logvar (clamped) and tril = product + bias
//           kl[b] = ½ Σ_i (mu_i² + expm1(logvar_i) − logvar_i + Σ_{j<i} L_ij²), in nats
//           z[r] = mu + L·epsilon[r]
//           log_q[r] = log q(z[r]|x) = −½ Σ_i (epsilon_i² + logvar_i + log 2π)
//           log_ratio[r] = log q(z[r]|x) − log N(z[r]; 0, I) = ½ Σ_i (z_i² − epsilon_i² −
//           logvar_i), with z_i² − epsilon_i² as (mu + (L − I)·epsilon)_i·(z + epsilon)_i: next to
//           the prior the difference of the squares would cancel
// Shapes    as in CholeskyDraws; any examples, latent from 0 to kMostCholeskyLatent, samples >= 1
// Writes    overwrites; nothing may overlap
// Numerics  float; each row of L and each sum over it by lane, then a fixed tree over the warp.
//           epsilon as kernels/philox.cuh says. NaN in gives NaN out.
// Cost      latent²/2 products a draw, and 4 bytes read of L for each, from cache after an
// example's
//           first draw; bound by latency at the sizes of a latent space
// Launch    a warp a draw, 4 warps a block, 16·latent bytes of shared memory. Throws
//           std::invalid_argument when latent is too large.
void cholesky_forward(const CholeskyHeads& heads, const EpsilonSource& source,
                      const CholeskyDraws& draws, cudaStream_t stream);

// What the forward left and the backward needs.
struct CholeskySaved {
    const float* epsilon = nullptr;  // [examples·samples, latent]
    const float* z = nullptr;        // [examples·samples, latent]
};

// Where the gradients go; nothing is null unless its size is 0.
struct CholeskyGradients {
    Reals d_product;                 // [examples, 2·stride + tril_stride]
    float* d_mu_bias = nullptr;      // [latent]
    float* d_logvar_bias = nullptr;  // [latent]
    float* d_tril_bias = nullptr;    // [tril_size]
    float* draws = nullptr;          // [examples·samples, latent], overwritten: the g below
};

// Computes  with u = L⁻ᵀ·epsilon (the score of mu), for each draw
//             g = path·d_z + scale·ratio·(−prior_score − u) + scale·score·u
//           and, sums over an example's draws,
//             d_mu     = Σ g + kl_scale·kl_mask·mu
//             d_L_ij   = Σ g_i·epsilon_j + kl_scale·kl_mask_i·L_ij,  i > j
//             d_logvar = ½ (Σ (g·epsilon·exp(logvar/2) − scale·score) +
//             kl_scale·kl_mask·expm1(logvar)),
//           zero where the unclamped log-variance lies outside [min, max]
// Shapes    as in CholeskySaved and CholeskyGradients, gradient's as in reparameterize.h; sizes as
//           the forward's
// Writes    overwrites, padding of d_product with zero; nothing may overlap. The bias gradients are
//           zero if examples is 0.
// Numerics  float, draws in ascending order; u by back substitution, from the last row of L on.
//           Column sums: float over the rows of a tile (at most 64), double across tiles, of
//           d_product before it is rounded to bf16.
// Cost      latent²/2 products a draw for u, where ratio or score is there, and as many for d_L; 8
//           bytes an element of d_product (bf16 6); bound by latency at usual sizes
// Launch    where g is not d_z itself, a warp a draw, 4 warps a block, 32·latent bytes of shared
//           memory; then tiles of [examples, 2·stride + tril_stride], see kernels/tile.cuh. Throws
//           std::invalid_argument if scratch is smaller than scratch_size of those.
void cholesky_backward(const CholeskyHeads& heads, const CholeskySaved& saved,
                       const LatentGradient& gradient, const CholeskyGradients& to,
                       const Scratch& scratch, cudaStream_t stream);

}  // namespace vae::kernels
