// log p(z) of a mixture of Gaussians with diagonal covariances (Bishop 2006), its
// gradient, and that of the components' parameters.
//
// With weights pi and m, v the mean and log-variance of a component, each in the latent space,
//   log p(z) = log Σ_k pi_k N(z; m_k, exp(v_k)),   gamma_k = pi_k N(z; m_k, exp(v_k)) / p(z)
// What is computed is log p(z) − log N(z; 0, I) = log Σ_k pi_k exp(a_k), and so the difference to a
// log-ratio against N(0, I): where posterior and prior are close, both are small, while log q and
// log p would be rounded by more than their difference. With s = exp(−v/2),
//   a_k = ½ Σ_j (z² − s²(z − m)² − v) = ½ Σ_j ((s·m + (1 − s)·z)·(z + s·(z − m)) − v)
#pragma once

#include <cuda_runtime.h>

#include "kernels/reals.h"
#include "kernels/scratch.h"
#include "kernels/step_state.h"

namespace vae::kernels {

// Where the components' parameters are, on the device. Of component k: mean at mean + k·row_stride,
// likewise log-variance, each with its bias where there is one (as a row of the encoder's heads
// has).
struct MixtureSource {
    const float* mean = nullptr;
    const float* logvar = nullptr;  // before it is clamped
    int row_stride = 0;
    const float* mean_bias = nullptr;    // [latent], or null
    const float* logvar_bias = nullptr;  // [latent], or null
    const float* logits = nullptr;       // [components]: pi = softmax(logits); null: 1/components
    int components = 1;
    int latent = 0;
    float logvar_min = 0;
    float logvar_max = 0;
};

// What is made of them once, for all z; on the device.
struct MixtureComponents {
    float* mean = nullptr;           // [components, latent]
    float* inverse_sigma = nullptr;  // [components, latent]: exp(−v/2)
    float* excess = nullptr;         // [components, latent]: 1 − exp(−v/2)
    float* offset = nullptr;         // [components]: −½ Σ v
    double* log_weight = nullptr;    // [components]: log pi
};

// Computes  the components, v = clamp(logvar + bias, logvar_min, logvar_max)
// Shapes    components >= 1, row_stride >= latent >= 0
// Writes    overwrites; nothing may overlap
// Numerics  elements in float, weights and offsets in double, offsets rounded once
// Cost      20 bytes an element, and the logits once for each component; bound by latency
// Launch    a warp a component, 8 warps a block
void mixture_components(const MixtureSource& source, const MixtureComponents& out,
                        cudaStream_t stream);

// What z leaves, of `rows` codes; on the device.
struct MixtureOutputs {
    float* relative = nullptr;   // [rows], or null: log p(z) − log N(z; 0, I)
    float* log_ratio = nullptr;  // [rows], or null: relative is subtracted from it
    float* score = nullptr;  // [rows, latent]: ∂ log p(z)/∂z = Σ_k gamma_k exp(−v_k) (m_k − z)
    float* gamma = nullptr;  // [rows, components]
};

// Shapes    z[rows, latent], any rows >= 0
// Writes    overwrites all but log_ratio; nothing may overlap
// Numerics  a_k and scores: float over 32 terms, double across these. log-sum-exp in double from
//           the floats a_k, from the largest term on.
// Cost      8 and 4 flops for each latent element, component and row; 12 bytes a component and
//           row. Parameters are read once for 32 rows. Bound by latency at usual sizes.
// Launch    three kernels: tiles of 32 rows by 32 components, 256 threads, 17 KiB; a warp a row, 8
//           warps a block; tiles of 32 rows by 32 latent elements, 256 threads, 13 KiB
void mixture_forward(const MixtureSource& source, const MixtureComponents& components,
                     const float* z, int rows, const MixtureOutputs& out, cudaStream_t stream);

// What mixture_forward left, and how much each −log p(z) weighs in the loss: scale·weight[r].
struct MixtureRows {
    const float* z = nullptr;
    const float* gamma = nullptr;
    const float* weight = nullptr;  // [rows]
    int rows = 0;
    double scale = 1;
    const StepState* state = nullptr;  // if there is one, scale is multiplied by its beta
};

// Of the source's parameters, laid out as they are; on the device.
struct MixtureGradient {
    Reals mean;
    Reals logvar;                  // stored as mean
    float* mean_bias = nullptr;    // [latent], added to; null where there are none
    float* logvar_bias = nullptr;  // likewise
    float* logits = nullptr;       // [components]; null where there are none
};

// Computes  with a = scale·weight·gamma_k of a row and d = z − m_k, summed over the rows,
//           d_mean   = −Σ a·exp(−v)·d
//           d_logvar = −½ Σ a·(exp(−v)·d² − 1), zero where logvar + bias lies outside its range
//           d_logits = −Σ scale·weight·(gamma_k − pi_k)
//           biases: the sums of these over the components are added
// Writes    overwrites all but the biases, and leaves what lies between rows of a longer stride;
//           nothing may overlap. All are zero, and biases stay, if rows is 0.
// Numerics  Terms in float; sums over rows and components: float over 32 rows, or as
//           kernels/tile.cuh, double across these, in a fixed order; biases take what d_mean and
//           d_logvar are before they are rounded to bf16
// Cost      6 flops for each latent element, component and row; parameters' sums are written once
//           for every 128 rows or more. Bound by latency at usual sizes.
// Launch    tiles of 32 components by 32 latent elements, for parts of the rows, 256 threads, 8
//           KiB; then tiles of [components, latent] and, for logits, of [rows, components], see
//           kernels/tile.cuh. Throws std::invalid_argument if scratch is smaller than
//           mixture_scratch_size(rows, components, latent).
void mixture_backward(const MixtureSource& source, const MixtureComponents& components,
                      const MixtureRows& rows, const MixtureGradient& gradient,
                      const Scratch& scratch, cudaStream_t stream);

// Monotone in rows, so that the size for the most of them serves all.
ScratchSize mixture_scratch_size(int rows, int components, int latent);

}  // namespace vae::kernels
