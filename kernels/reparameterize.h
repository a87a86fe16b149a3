// The encoder's heads, z = mu + sigma·epsilon and the KL divergence to N(0, I), and their backward
// (Kingma & Welling 2014, section 2.4 and appendix B).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/noise.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// The joint product of both heads, without bias: product[rows, 2·stride], mu in columns
// [0, latent), log-variance in [stride, stride + latent); other columns are padding.
struct HeadsView {
    const float* product = nullptr;
    const float* mu_bias = nullptr;      // [latent]
    const float* logvar_bias = nullptr;  // [latent]
    int rows = 0;
    int latent = 0;
    int stride = 0;
    float logvar_min = 0;
    float logvar_max = 0;
};

// Computes  mu = product + bias; logvar = clamp(product + bias, min, max)
//           z = mu + exp(logvar/2)·epsilon; kl[r] = ½ Σ (mu² + expm1(logvar) − logvar), in nats
//           epsilon[r, j]: normal j of example first_index + index[r] in the noise stream
// Shapes    mu, logvar, epsilon, z [rows, latent]; kl[rows]; index[rows]; any rows, latent >= 0
// Writes    overwrites; each of mu, logvar, epsilon may be null; nothing may overlap. kl is zero if
//           latent is 0.
// Numerics  float; kl by lane, then a fixed tree over the warp. epsilon as kernels/philox.cuh says,
//           which the tests hold within 1e-5 of host/noise.h. NaN in gives NaN out: the clamp lets
//           it through.
// Cost      8 bytes read and 4 to 16 written an element, about 100 instructions; bound by latency
//           at the sizes of a latent space
// Launch    a warp a row, 4 elements a lane at a time, 4 warps a block
void reparameterize_forward(const HeadsView& heads, const NoiseStream& noise,
                            const std::uint32_t* index, std::uint32_t first_index, float* mu,
                            float* logvar, float* epsilon, float* z, float* kl,
                            cudaStream_t stream);

// The backward of loss = f(z) + kl_scale·Σ kl, given d_z = df/dz; epsilon is drawn again.
// Computes  d_mu = d_z + kl_scale·mu
//           d_logvar = ½ (d_z·epsilon·exp(logvar/2) + kl_scale·expm1(logvar)), zero where the
//           unclamped log-variance lies outside [min, max]
// Shapes    d_z[rows, latent]; d_product[rows, 2·stride] laid out as heads.product;
//           d_mu_bias, d_logvar_bias [latent]: column sums; any rows, latent, stride >= 0
// Writes    overwrites, padding of d_product with zero; d_product may be heads.product, nothing
//           else may overlap. The bias gradients are zero if rows is 0.
// Numerics  as above. Column sums: float over the rows of a tile (at most 64), double across tiles.
// Cost      24 bytes an element of z, about 150 instructions; bound by latency at usual sizes.
//           A stride that is no multiple of 4 draws noise for each element anew.
// Launch    tiles of [rows, 2·stride], see kernels/tile.cuh. Throws std::invalid_argument if
//           scratch is smaller than scratch_size(rows, 2·stride).
void reparameterize_backward(const HeadsView& heads, const NoiseStream& noise,
                             const std::uint32_t* index, std::uint32_t first_index,
                             const float* d_z, float kl_scale, float* d_product, float* d_mu_bias,
                             float* d_logvar_bias, const Scratch& scratch, cudaStream_t stream);

}  // namespace vae::kernels
