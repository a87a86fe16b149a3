// Adam (Kingma & Ba 2015, algorithm 1) over the whole parameter arena. T is float or double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host/config.h"

namespace vae::cpu {

// All computed in double and rounded once: 1 − beta in float would be off by 1e-5 of itself.
template <class T>
struct AdamStep {
    T beta1 = 0;
    T one_minus_beta1 = 0;
    T beta2 = 0;
    T one_minus_beta2 = 0;
    T epsilon = 0;
    T step_size = 0;                 // learning rate / (1 − beta1^t)
    T inverse_sqrt_correction2 = 0;  // 1 / sqrt(1 − beta2^t)
};

// The t-th step, t from 1.
template <class T>
AdamStep<T> adam_step(const TrainConfig& config, double learning_rate, std::uint64_t t);

// Computes  m = beta1·m + (1 − beta1)·g; v = beta2·v + (1 − beta2)·g²
//           p −= step_size·m / (sqrt(v)·inverse_sqrt_correction2 + epsilon)
//           which is torch.optim.Adam without weight decay
// Shapes    all [size]; parameters, m, v are updated in place
template <class T>
void adam(const AdamStep<T>& step, const T* gradients, std::size_t size, T* parameters, T* m, T* v);

}  // namespace vae::cpu
