// Free bits: a floor under the KL term in closed form, below which it costs nothing and has no
// gradient (Kingma et al. 2016, Improving variational inference with inverse autoregressive flow,
// appendix C.8). T is float or double.
//
// With λ = nats, and means over the batch,
//   per dimension  Σ_j max(λ, mean_b kl_bj),  kl_bj = ½ (mu² + expm1(logvar) − logvar)
//   in total       max(λ, mean_b Σ_j kl_bj)
// An example's share is what it adds to the mean: kl where the mean is above λ, else λ. A mean that
// is NaN counts as above, so that it shows in the loss.
#pragma once

#include <cstddef>

namespace vae::cpu {

// Computes  kl_mask[j] = 1 if mean_b kl_bj > nats, else 0
//           loss_kl[b] = Σ_j (kl_bj where kl_mask is 1, else nats)
// Shapes    mu, logvar [examples, latent]; kl_mask[latent]; loss_kl[examples];
//           partials[chunk_count(examples), latent] is overwritten
template <class T>
void free_bits_per_dimension(const T* mu, const T* logvar, std::size_t examples, std::size_t latent,
                             double nats, T* kl_mask, T* loss_kl, T* partials);

// Computes  kl_mask[j] = 1 for all j if mean_b kl[b] > nats, else 0
//           loss_kl[b] = kl[b] if they are 1, else nats
// Shapes    kl, loss_kl [examples]; kl_mask[latent]
template <class T>
void free_bits_in_total(const T* kl, std::size_t examples, std::size_t latent, double nats,
                        T* kl_mask, T* loss_kl);

}  // namespace vae::cpu
