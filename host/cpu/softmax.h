// Categorical likelihood: a softmax over the `classes` outputs of each group. T is float or double.
// Of discrete pixels (categorical) a group is a pixel and in.pixels their number, x[rows, pixels] =
// k/(classes − 1); of one-hot data a group is `classes` neighbouring values, and x is as wide as
// the product.
#pragma once

#include "host/cpu/likelihood_rows.h"

namespace vae::cpu {

struct SoftmaxSettings {
    std::size_t classes = 0;
    bool is_onehot = false;
};

// Computes  l = product + bias; recon[r] = Σ_groups log Σ_k exp(l_k) − l_t, t the data's class
template <class T>
void softmax_forward(const LikelihoodInput<T>& in, const SoftmaxSettings& settings, T* recon);

// Computes  recon as above; d_product = scale·row_weight[r]·(softmax(l) − 1 at the data's class);
//           d_bias[c] = Σ_r d_product[r, c]
template <class T>
void softmax_forward_backward(const LikelihoodInput<T>& in, const SoftmaxSettings& settings,
                              const LikelihoodGradient<T>& gradient, T* recon);

// Computes  mean[rows, in.pixels]: the probabilities (one-hot), or Σ_k k/(classes − 1)·softmax(l)_k
template <class T>
void softmax_mean(const LikelihoodInput<T>& in, const SoftmaxSettings& settings, T* mean);

}  // namespace vae::cpu
