// The encoder's heads, z = mu + sigma·epsilon and the KL divergence to N(0, I), and their backward
// (Kingma & Welling 2014, section 2.4 and appendix B). T is float or double.
#pragma once

#include <cstddef>

namespace vae::cpu {

// The joint product of both heads, without bias: product[rows, 2·stride], mu in columns
// [0, latent), log-variance in [stride, stride + latent); other columns are padding.
template <class T>
struct HeadsView {
    const T* product = nullptr;
    const T* mu_bias = nullptr;      // [latent]
    const T* logvar_bias = nullptr;  // [latent]
    std::size_t rows = 0;
    std::size_t latent = 0;
    std::size_t stride = 0;
    T logvar_min = 0;
    T logvar_max = 0;
};

// Computes  mu = product + bias; logvar = clamp(product + bias, min, max)
//           z = mu + exp(logvar/2)·epsilon; kl[r] = ½ Σ (mu² + expm1(logvar) − logvar)
// Shapes    mu, logvar, epsilon, z [rows, latent]; kl[rows]
template <class T>
void reparameterize_forward(const HeadsView<T>& heads, const T* epsilon, T* mu, T* logvar, T* z,
                            T* kl);

// The backward of loss = f(z) + kl_scale·Σ kl, given d_z = df/dz.
// Computes  d_mu = d_z + kl_scale·mu
//           d_logvar = ½ (d_z·epsilon·exp(logvar/2) + kl_scale·expm1(logvar)), zero where the
//           unclamped log-variance lies outside [min, max]
// Shapes    epsilon, d_z [rows, latent]; d_product[rows, 2·stride] laid out as heads.product and
//           may be it, padding zero; d_mu_bias, d_logvar_bias [latent]: column sums;
//           partials[chunk_count(rows), 2·stride] is overwritten
template <class T>
void reparameterize_backward(const HeadsView<T>& heads, const T* epsilon, const T* d_z,
                             double kl_scale, T* d_product, T* d_mu_bias, T* d_logvar_bias,
                             T* partials);

}  // namespace vae::cpu
