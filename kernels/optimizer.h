// One step of an optimiser over the whole parameter arena.
#pragma once

#include <cuda_runtime.h>

#include "kernels/arena.h"
#include "kernels/reals.h"
#include "kernels/step_state.h"

namespace vae::kernels {

// adam is AdamW when the decay is decoupled; momentum is SGD with it, sgd without.
enum class UpdateRule { adam, adagrad, momentum, sgd };

// The decays stay double, so that 1 − beta is right to float rounding: 1 − 0.999f is wrong by
// 1.3e-5.
struct OptimizerSettings {
    UpdateRule rule = UpdateRule::adam;
    double beta1 = 0.9;        // adam
    double beta2 = 0.999;      // adam
    float epsilon = 1e-8f;     // adam, adagrad
    float momentum = 0;        // momentum
    float weight_decay = 0;    // weight_decay·p is added to the gradient
    double average_decay = 0;  // of the average, if there is one
};

// Arenas of one layout.
struct OptimizerArenas {
    const float* gradients = nullptr;
    float* parameters = nullptr;
    float* moment1 = nullptr;  // adam: m; adagrad: s; momentum: v; sgd: none
    float* moment2 = nullptr;  // adam: v; else none
    float* average = nullptr;  // null: there is none
    Bf16* copy = nullptr;      // of the parameters; null: there is none
};

// Computes  nothing if *is_taken is 0; else, with g = scales[tensor]·gradient + weight_decay·p,
//           adam      m = beta1·m + (1 − beta1)·g; v = beta2·v + (1 − beta2)·g²
//                     u = m / (sqrt(v)·inverse_sqrt_correction2 + epsilon)
//           adagrad   s += g²; u = g / (sqrt(s) + epsilon)
//           momentum  v = momentum·v + g; u = v
//           sgd       u = g
//           with step_size, shrink and the correction of the state
//           p = shrink·p − step_size·u
//           average = average_decay·average + (1 − average_decay)·p; copy = p in bf16
// Shapes    scales[tensor_count]; is_taken, state: one; all on the device. Any pieces, none
//           included
// Writes    updates parameters, moments and average in place, overwrites the copy; no array may
//           overlap another. What lies between tensors is neither read nor written. Throws
//           std::invalid_argument when a moment is missing or, for adam and adagrad, unless epsilon
//           > 0: without it there is 0/0 where there never was a gradient.
// Numerics  float, IEEE division and square root; each element on its own, so always the same bits
// Cost      adam 28, adagrad and momentum 20, sgd 12 bytes an element, 8 more for the average and 2
//           for the copy; up to 20 flops; bound by memory bandwidth
// Launch    a block of 256 threads a piece; four elements a thread and turn, if all arrays are
//           aligned to 4 elements, else one
void optimizer(const OptimizerSettings& settings, const StepState* state, const ArenaTable& arena,
               const float* scales, const unsigned* is_taken, const OptimizerArenas& arenas,
               cudaStream_t stream);

}  // namespace vae::kernels
