// One step of Adam, AdamW, Adagrad or SGD, as torch.optim has them, and the parameters' moving
// average. T is float or double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "host/config.h"
#include "host/parameters.h"

namespace vae::cpu {

// All computed in double and rounded once: 1 − beta in float would be off by 1e-5 of itself.
template <class T>
struct OptimizerStep {
    Optimizer optimizer = Optimizer::adam;
    T beta1 = 0;
    T one_minus_beta1 = 0;
    T beta2 = 0;
    T one_minus_beta2 = 0;
    T inverse_sqrt_correction2 = 0;  // 1 / sqrt(1 − beta2^t)
    T epsilon = 0;
    T momentum = 0;
    T step_size = 0;     // learning rate; of Adam learning rate / (1 − beta1^t)
    T weight_decay = 0;  // weight_decay·p is added to the gradient; 0 for AdamW
    T shrink = 1;        // AdamW's: 1 − learning rate·weight decay
    T ema_decay = 0;     // 0: there is no average
    T one_minus_ema_decay = 1;
};

// The t-th step of the run, t from 1, skipped ones counted.
template <class T>
OptimizerStep<T> optimizer_step(const TrainConfig& config, double learning_rate, std::uint64_t t);

// Arenas of one layout; null where the optimiser has no such moment, and without an average.
template <class T>
struct OptimizerArenas {
    T* parameters = nullptr;
    T* moment1 = nullptr;  // Adam: m; Adagrad: s; SGD: v, null without momentum
    T* moment2 = nullptr;  // Adam: v
    T* ema = nullptr;
};

// Computes  with g = scale of the tensor·gradient + weight_decay·p, for every tensor,
//           Adam(W)  m = beta1·m + (1 − beta1)·g; v = beta2·v + (1 − beta2)·g²
//                    p = shrink·p − step_size·m / (sqrt(v)·inverse_sqrt_correction2 + epsilon)
//           Adagrad  s = s + g²; p = p − step_size·g / (sqrt(s) + epsilon)
//           SGD      v = momentum·v + g; p = p − step_size·v
//           ema = ema_decay·ema + (1 − ema_decay)·p
// Shapes    gradients and arenas of the tensors' layout, updated in place; a scale for each tensor;
//           what lies between tensors is not touched
template <class T>
void update(const OptimizerStep<T>& step, std::span<const Tensor> tensors,
            std::span<const double> scales, const T* gradients, const OptimizerArenas<T>& arenas);

}  // namespace vae::cpu
