// The encoder's heads, z = mu + sigma·epsilon and the KL divergence to N(0, I), and their backward
// (Kingma & Welling 2014, section 2.4 and appendix B). T is float or double.
//
// An example has `samples` draws of z: row r of an array [examples·samples, …] is draw r % samples
// of example r / samples.
#pragma once

#include <cstddef>

namespace vae::cpu {

// The joint product of both heads, without bias: product[examples, 2·stride], mu in columns
// [0, latent), log-variance in [stride, stride + latent); other columns are padding.
template <class T>
struct HeadsView {
    const T* product = nullptr;
    const T* mu_bias = nullptr;      // [latent]
    const T* logvar_bias = nullptr;  // [latent]
    std::size_t examples = 0;
    std::size_t samples = 1;
    std::size_t latent = 0;
    std::size_t stride = 0;
    T logvar_min = 0;
    T logvar_max = 0;
};

// Computes  mu = product + bias; logvar = clamp(product + bias, min, max)
//           kl[b] = ½ Σ (mu² + expm1(logvar) − logvar)
//           z[r] = mu + exp(logvar/2)·epsilon[r]
//           log_ratio[r] = log q(z[r]|x) − log p(z[r]) = ½ Σ (z² − epsilon² − logvar), with
//           z² − epsilon² as (mu + expm1(logvar/2)·epsilon)·(z + epsilon): next to the prior the
//           difference of the squares would cancel
// Shapes    mu, logvar [examples, latent]; kl[examples]; epsilon, z [examples·samples, latent];
//           log_ratio[examples·samples]
template <class T>
void reparameterize_forward(const HeadsView<T>& heads, const T* epsilon, T* mu, T* logvar, T* z,
                            T* kl, T* log_ratio);

// How the loss depends on each draw, [examples·samples] each but d_z.
template <class T>
struct LatentGradient {
    const T* d_z = nullptr;    // of the decoder's part, [examples·samples, latent]
    const T* path = nullptr;   // factor of d_z
    const T* ratio = nullptr;  // of the path derivative of log q(z|x) − log p(z): z moves with the
                               // encoder, q's own parameters are held
    const T* prior_score = nullptr;  // ∂ log p(z)/∂z, [examples·samples, latent]; null: −z, that of
                                     // N(0, I)
    const T* score = nullptr;    // of the score ∂ log q(z|x)/∂(mu, logvar), z held
    double scale = 1;            // factor of ratio and score
    double kl_scale = 0;         // of each kl in closed form …
    const T* kl_mask = nullptr;  // … and its dimensions' own factors, [latent]
};

// Computes  d = path·d_z + scale·ratio·(z − epsilon/sigma), sigma = exp(logvar/2)
//           d_mu = Σ_samples (d + scale·score·epsilon/sigma) + kl_scale·kl_mask·mu
//           d_logvar = ½ (Σ_samples (d·sigma·epsilon + scale·score·(epsilon² − 1))
//                         + kl_scale·kl_mask·expm1(logvar)),
//           zero where the unclamped log-variance lies outside [min, max]
// Shapes    epsilon[examples·samples, latent]; d_product[examples, 2·stride] laid out as
//           heads.product and may be it, padding zero; d_mu_bias, d_logvar_bias [latent]: column
//           sums; partials[chunk_count(examples), 2·stride] is overwritten
template <class T>
void reparameterize_backward(const HeadsView<T>& heads, const T* epsilon,
                             const LatentGradient<T>& gradient, T* d_product, T* d_mu_bias,
                             T* d_logvar_bias, T* partials);

}  // namespace vae::cpu
