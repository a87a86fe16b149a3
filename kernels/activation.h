// The activations of hidden layers that have one product.
#pragma once

namespace vae::kernels {

//           f(x)                          f'(x)
// relu      max(x, 0)                     x > 0 ? 1 : 0
// tanh      tanh x                        1 − tanh² x
// softplus  max(x, 0) + log1p(exp(−|x|))  sigmoid x
// gelu      x·Φ(x)                        Φ(x) + x·φ(x)      (Hendrycks & Gimpel 2016, exact: erf)
// silu      x·sigmoid x                   s·(1 + x·(1 − s)), s = sigmoid x
enum class Activation { relu, tanh, softplus, gelu, silu };

}  // namespace vae::kernels
