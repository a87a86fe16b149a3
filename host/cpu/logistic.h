// Discretised logistic likelihood of pixels x = k/(levels − 1): the mass of a logistic distribution
// in the bin around x, the outermost bins taking the tails. T is float or double. Two outputs a
// pixel: the mean m, and s with log-scale = bounded(s, least, most).
#pragma once

#include <cstdint>

#include "host/cpu/likelihood_rows.h"

namespace vae::cpu {

struct LogisticSettings {
    std::uint32_t levels = 256;
    double least = 0;  // log-scale
    double most = 0;
};

// Computes  recon[r] = Σ_c −log p, with h = 1/(2(levels − 1)), a and b = (x − m ± h)/scale:
//           p = σ(a) − σ(b), σ(a) at x = 0, σ(−b) at x = 1
template <class T>
void logistic_forward(const LikelihoodInput<T>& in, const LogisticSettings& settings, T* recon);

template <class T>
void logistic_forward_backward(const LikelihoodInput<T>& in, const LogisticSettings& settings,
                               const LikelihoodGradient<T>& gradient, T* recon);

// Computes  mean[r, c] = Σ_k σ((m − (k + ½)/(levels − 1))/scale)/(levels − 1) over k = 0 …
//           levels − 2: the mean of the levels under their masses. x is not used.
template <class T>
void logistic_mean(const LikelihoodInput<T>& in, const LogisticSettings& settings, T* mean);

}  // namespace vae::cpu
