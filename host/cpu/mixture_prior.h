// log p(z) of a mixture of Gaussians with diagonal covariances (Bishop 2006), its
// gradient, and that of the components' parameters. T is float or double.
//
// With weights pi and m, v the mean and log-variance of a component, each in the latent space,
//   log p(z) = log Σ_k pi_k N(z; m_k, exp(v_k)),   gamma_k = pi_k N(z; m_k, exp(v_k)) / p(z)
// What is computed is log p(z) − log N(z; 0, I) = log Σ_k pi_k exp(a_k), and so the difference to a
// log-ratio against N(0, I): where posterior and prior are close, both are small, while log q and
// log p would be rounded by more than their difference. With s = exp(−v/2),
//   a_k = ½ Σ_j (z² − s²(z − m)² − v) = ½ Σ_j ((s·m + (1 − s)·z)·(z + s·(z − m)) − v)
#pragma once

#include <cstddef>

namespace vae::cpu {

// Where the components' parameters are. Of component k: mean at mean + k·row_stride, likewise
// log-variance, each with its bias where there is one (as a row of the encoder's heads has).
template <class T>
struct MixtureSource {
    const T* mean = nullptr;
    const T* logvar = nullptr;  // before it is clamped
    std::size_t row_stride = 0;
    const T* mean_bias = nullptr;    // [latent], or null
    const T* logvar_bias = nullptr;  // [latent], or null
    const T* logits = nullptr;       // [components]: pi = softmax(logits); null: 1/components
    std::size_t components = 0;
    std::size_t latent = 0;
    T logvar_min = 0;
    T logvar_max = 0;
};

// What is made of them once, for all z.
template <class T>
struct MixtureComponents {
    T* mean = nullptr;             // [components, latent]
    T* inverse_sigma = nullptr;    // [components, latent]: exp(−v/2)
    T* excess = nullptr;           // [components, latent]: 1 − exp(−v/2)
    T* offset = nullptr;           // [components]: −½ Σ v
    double* log_weight = nullptr;  // [components]: log pi
};

// Computes  the components, v = clamp(logvar + bias, logvar_min, logvar_max)
template <class T>
void mixture_components(const MixtureSource<T>& source, const MixtureComponents<T>& out);

// What z leaves, of `rows` codes.
template <class T>
struct MixtureOutputs {
    T* relative = nullptr;   // [rows], or null: log p(z) − log N(z; 0, I)
    T* log_ratio = nullptr;  // [rows], or null: relative is subtracted from it
    T* score = nullptr;  // [rows, latent]: ∂ log p(z)/∂z = Σ_k gamma_k exp(−v_k) (m_k − z)
    T* gamma = nullptr;  // [rows, components]
};

// Shapes    z[rows, latent]
// Numerics  a_k in T; log-sum-exp in double, from the largest term on
template <class T>
void mixture_forward(const MixtureSource<T>& source, const MixtureComponents<T>& components,
                     const T* z, std::size_t rows, const MixtureOutputs<T>& out);

// What mixture_forward left, and how much each −log p(z) weighs in the loss: scale·weight[r].
template <class T>
struct MixtureRows {
    const T* z = nullptr;
    const T* gamma = nullptr;
    const T* weight = nullptr;  // [rows]
    std::size_t rows = 0;
    double scale = 1;
};

// Of the source's parameters, laid out as they are.
template <class T>
struct MixtureGradient {
    T* mean = nullptr;
    T* logvar = nullptr;
    T* mean_bias = nullptr;    // [latent], added to; null where there are none
    T* logvar_bias = nullptr;  // likewise
    T* logits = nullptr;       // [components]; null where there are none
};

// Computes  with a = scale·weight·gamma_k of a row and d = z − m_k, summed over the rows,
//           d_mean   = −Σ a·exp(−v)·d
//           d_logvar = −½ Σ a·(exp(−v)·d² − 1), zero where logvar + bias lies outside its range
//           d_logits = −Σ scale·weight·(gamma_k − pi_k)
//           biases: the sums of these over the components are added
// Numerics  products in T, sums over rows and components in double, in ascending order
template <class T>
void mixture_backward(const MixtureSource<T>& source, const MixtureComponents<T>& components,
                      const MixtureRows<T>& rows, const MixtureGradient<T>& gradient);

}  // namespace vae::cpu
