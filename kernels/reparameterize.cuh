// What kernels of the reparameterisation share: one element of one draw, forward and backward.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <limits>

#include "kernels/check.h"
#include "kernels/functions.cuh"
#include "kernels/reparameterize.h"

namespace vae::kernels {

inline void require_heads(const HeadsView& heads, const char* launcher) {
    require_shape(heads.examples, heads.latent, launcher);
    require(heads.samples >= 1, launcher, "samples must be at least 1");
    require(heads.stride >= heads.latent, launcher, "stride must not be less than latent");
    require(heads.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
    require(heads.logvar_min <= heads.logvar_max, launcher,
            "logvar_min must not be greater than logvar_max");
}

__device__ inline float clamped_logvar(const HeadsView& heads, float unclamped) {
    return clamp(unclamped, heads.logvar_min, heads.logvar_max);
}

// mu + sigma·epsilon
__device__ inline float drawn(float mu, float logvar, float epsilon) {
    return fmaf(expf(0.5f * logvar), epsilon, mu);
}

// Twice an element's part of the KL divergence.
__device__ inline float twice_kl(float mu, float logvar) {
    return mu * mu + (expm1f(logvar) - logvar);
}

// One latent element of one example: what its draws need of it.
struct Element {
    float mu;
    float logvar;
    float sigma;
    float inverse_sigma;
    bool is_outside;  // of the clamp
};

__device__ inline Element element_of(const HeadsView& heads, float mu, float unclamped) {
    const float logvar = clamped_logvar(heads, unclamped);
    return {mu, logvar, expf(0.5f * logvar), expf(-0.5f * logvar),
            unclamped < heads.logvar_min || unclamped > heads.logvar_max};
}

// Of element j's gradient, of mu or twice that of log-variance: the part of the KL in closed form.
__device__ inline float kl_part(const LatentGradient& gradient, float kl_scale,
                                const Element& element, bool is_logvar, unsigned j) {
    if (gradient.kl_mask != nullptr) kl_scale *= gradient.kl_mask[j];
    return kl_scale * (is_logvar ? expm1f(element.logvar) : element.mu);
}

// The mean's gradient through z alone needs no noise.
__device__ inline bool needs_noise(const LatentGradient& gradient, bool is_logvar) {
    return is_logvar || gradient.ratio != nullptr || gradient.score != nullptr;
}

// An element of z.
struct DrawnElement {
    std::size_t row;
    unsigned latent;
    unsigned j;

    __device__ std::size_t offset() const { return row * latent + j; }
};

// … the part that the gradient d of z has, which is the same whichever way d came about.
__device__ inline float path_part(const Element& element, bool is_logvar, float d, float epsilon) {
    return is_logvar ? d * (element.sigma * epsilon) : d;
}

// … the part of a draw.
__device__ inline float draw_part(const LatentGradient& gradient, const Element& element,
                                  bool is_logvar, const DrawnElement& at, float epsilon) {
    const std::size_t r = at.row;
    float d = gradient.d_z[at.offset()];
    if (gradient.path != nullptr) d *= gradient.path[r];
    if (gradient.ratio != nullptr) {
        const float minus_prior_score = gradient.prior_score != nullptr
                                            ? -gradient.prior_score[at.offset()]
                                            : element.mu + element.sigma * epsilon;
        d += gradient.scale * gradient.ratio[r] *
             (minus_prior_score - epsilon * element.inverse_sigma);
    }
    d = path_part(element, is_logvar, d, epsilon);
    if (gradient.score == nullptr) return d;
    const float score = gradient.scale * gradient.score[r];
    return d + score * (is_logvar ? epsilon * epsilon - 1.0f : epsilon * element.inverse_sigma);
}

// … from all parts.
__device__ inline float finished(const Element& element, bool is_logvar, float sum) {
    if (!is_logvar) return sum;
    return element.is_outside ? 0.0f : 0.5f * sum;
}

}  // namespace vae::kernels
