// The encoder's heads, z = mu + sigma·epsilon and the KL divergence to N(0, I), and their backward
// (Kingma & Welling 2014, section 2.4 and appendix B).
//
// An example has `samples` draws of z: row r of an array [examples·samples, …] is draw r % samples
// of example r / samples.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/noise.h"
#include "kernels/reals.h"
#include "kernels/scratch.h"

namespace vae::kernels {

// The joint product of both heads, without bias: product[examples, 2·stride], mu in columns
// [0, latent), log-variance in [stride, stride + latent); other columns are padding.
struct HeadsView {
    const float* product = nullptr;
    const float* mu_bias = nullptr;      // [latent]
    const float* logvar_bias = nullptr;  // [latent]
    int examples = 0;
    int samples = 1;
    int latent = 0;
    int stride = 0;
    float logvar_min = 0;
    float logvar_max = 0;
};

// Where epsilon is: draw s of example b is at sample stream.sample + s of example
// first_index + index[b].
struct EpsilonSource {
    NoiseStream stream;
    const std::uint32_t* index = nullptr;  // [examples], device
    std::uint32_t first_index = 0;
};

// All on the device; each but z may be null, and is then not written.
struct Draws {
    float* mu = nullptr;         // [examples, latent]
    float* logvar = nullptr;     // [examples, latent]
    float* kl = nullptr;         // [examples]
    float* epsilon = nullptr;    // [examples·samples, latent]
    float* z = nullptr;          // [examples·samples, latent]
    float* log_ratio = nullptr;  // [examples·samples]
    Bf16* rounded_z = nullptr;   // as z: z in bf16
};

// Computes  mu = product + bias; logvar = clamp(product + bias, min, max)
//           kl[b] = ½ Σ (mu² + expm1(logvar) − logvar), in nats
//           z[r] = mu + exp(logvar/2)·epsilon[r]
//           log_ratio[r] = log q(z[r]|x) − log N(z[r]; 0, I) = ½ Σ (z² − epsilon² − logvar), with
//           z² − epsilon² as (mu + expm1(logvar/2)·epsilon)·(z + epsilon): next to the prior the
//           difference of the squares would cancel
// Shapes    as in Draws; any examples, latent >= 0, samples >= 1
// Writes    overwrites; nothing may overlap. kl and log_ratio are zero if latent is 0.
// Numerics  float; kl and log_ratio by lane, then a fixed tree over the warp. epsilon as
//           kernels/philox.cuh says, which the tests hold within 1e-5 of host/noise.h. NaN in gives
//           NaN out: the clamp lets it through.
// Cost      8 bytes read and 4 to 18 written an element of z, about 100 instructions; bound by
//           latency at the sizes of a latent space
// Launch    a warp a draw, 4 elements a lane at a time, 4 warps a block
void reparameterize_forward(const HeadsView& heads, const EpsilonSource& source, const Draws& draws,
                            cudaStream_t stream);

// How the loss depends on each draw. Arrays are on the device, [examples·samples] but where it says
// otherwise; a null one stands for the value in brackets.
struct LatentGradient {
    const float* d_z = nullptr;    // of the decoder's part, [examples·samples, latent]
    const float* path = nullptr;   // [1] factor of d_z
    const float* ratio = nullptr;  // [0] of the path derivative of log q(z|x) − log p(z): z moves
                                   // with the encoder, q's own parameters are held
    const float* score = nullptr;  // [0] of the score ∂ log q(z|x)/∂(mu, logvar), z held
    const float* prior_score = nullptr;  // [−z, that of N(0, I)] ∂ log p(z)/∂z, as d_z
    float scale = 1;                     // factor of ratio and score
    double kl_scale = 0;                 // of each kl in closed form …
    const StepState* state = nullptr;    // … times its beta, if there is one …
    const float* kl_mask = nullptr;      // … and its dimensions' own factors, [latent] [1]
};

// From so many draws on an example's are spread over a warp in the backward. One thread would take
// one after the other, each a chain of about 150 instructions, however much of the GPU is idle.
inline constexpr int kManyDraws = 16;

// The backward; epsilon is drawn again.
// Computes  d = path·d_z + scale·ratio·(−prior_score − epsilon/sigma), sigma = exp(logvar/2)
//           d_mu = Σ_samples (d + scale·score·epsilon/sigma) + kl_scale·kl_mask·mu
//           d_logvar = ½ (Σ_samples (d·sigma·epsilon + scale·score·(epsilon² − 1))
//                         + kl_scale·kl_mask·expm1(logvar)),
//           zero where the unclamped log-variance lies outside [min, max]
// Shapes    d_product[examples, 2·stride] laid out as heads.product; d_mu_bias, d_logvar_bias
//           [latent]: column sums; any examples, latent, stride >= 0, samples >= 1
// Writes    overwrites, padding of d_product with zero; nothing may overlap: each half of d_product
//           needs both of heads.product. The bias gradients are zero if examples is 0.
// Numerics  float, draws in ascending order; of kManyDraws or more by lane, then a tree over the
//           warp. Column sums: float over the rows of a tile (at most 64), double across tiles, of
//           d_product before it is rounded to bf16.
// Cost      32 bytes an element of z for one draw (28 with d_product in bf16), 8 for each more;
//           about 150 instructions a draw; bound by latency at usual sizes. A stride that is no
//           multiple of 4 draws noise for each element anew. Of many draws both halves share
//           what is read and drawn: 16 bytes an element (12), and 4 for each draw.
// Launch    tiles of [examples, 2·stride], see kernels/tile.cuh; of many draws a warp for four
//           elements of an example, lanes over the draws. Throws std::invalid_argument if
//           scratch is smaller than scratch_size(examples, 2·stride).
void reparameterize_backward(const HeadsView& heads, const EpsilonSource& source,
                             const LatentGradient& gradient, Reals d_product, float* d_mu_bias,
                             float* d_logvar_bias, const Scratch& scratch, cudaStream_t stream);

}  // namespace vae::kernels
