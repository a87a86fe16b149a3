// Free bits: a floor under the KL term in closed form, below which it costs nothing and has no
// gradient (Kingma et al. 2016, Improving variational inference with inverse autoregressive flow,
// appendix C.8).
//
// With λ = nats, and means over the batch,
//   per dimension  Σ_j max(λ, mean_b kl_bj),  kl_bj = ½ (mu² + expm1(logvar) − logvar)
//   in total       max(λ, mean_b Σ_j kl_bj)
// An example's share is what it adds to the mean: kl where the mean is above λ, else λ.
#pragma once

#include <cuda_runtime.h>

#include "kernels/reparameterize.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// Computes  kl_mask[j] = 1 if mean_b kl_bj > nats, else 0
//           loss_kl[b] = Σ_j (kl_bj where kl_mask is 1, else nats)
// Shapes    as HeadsView; kl_mask[latent], loss_kl[examples]; any examples, latent >= 0. The draws
//           do not matter.
// Writes    overwrites; nothing may overlap; nothing if examples or latent is 0
// Numerics  float; the mean as a column sum of kernels/tile.cuh in float over the rows of a tile
// (at
//           most 64), double across tiles; loss_kl by lane, then a fixed tree over the warp. A mean
//           that is NaN has mask 1, so that the NaN shows in the loss.
// Cost      16 bytes read an element, about 60 instructions; bound by latency at usual sizes
// Launch    tiles of [examples, latent], see kernels/tile.cuh, then a warp an example, 4 warps a
//           block. Throws std::invalid_argument if scratch is smaller than
//           scratch_size(examples, latent).
void free_bits_per_dimension(const HeadsView& heads, float nats, float* kl_mask, float* loss_kl,
                             const Scratch& scratch, cudaStream_t stream);

// Computes  kl_mask[j] = 1 for all j if mean_b kl[b] > nats, else 0
//           loss_kl[b] = kl[b] if they are 1, else nats
// Shapes    kl[examples], loss_kl[examples], kl_mask[latent]; any examples, latent >= 0
// Writes    overwrites; nothing may overlap; nothing if examples is 0
// Numerics  the mean in double, in a fixed order; NaN as above
// Cost      12 bytes an example; bound by latency
// Launch    one block of 512 threads, 136 bytes of shared memory
void free_bits_in_total(const float* kl, int examples, int latent, float nats, float* kl_mask,
                        float* loss_kl, cudaStream_t stream);

}  // namespace vae::kernels
