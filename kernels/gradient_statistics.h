// The norm of each tensor's gradient, and what follows from it for the step: whether it is taken,
// and by what each gradient is multiplied. All stays on the device.
#pragma once

#include <cuda_runtime.h>

#include "kernels/arena.h"
#include "kernels/loss_totals.h"

namespace vae::kernels {

struct GradientRules {
    bool normalize = false;  // each tensor's gradient is divided by (its norm + 1e-7)
    double clip_norm = 0;  // then all are scaled so that their common norm is at most this; 0: off
};

// What became of the steps since it was last zero.
struct StepRecord {
    LossSums losses;                // of the steps that were taken
    unsigned long long skipped;     // how many were not
    unsigned long long first_step;  // the first of them; of no meaning if there is none
    unsigned first_tensor;  // its first tensor that is not finite, or tensor_count: the loss
};

// On the device.
struct GradientStatistics {
    double* squares = nullptr;     // [tensor_count] Σ g²
    float* scales = nullptr;       // [tensor_count]
    unsigned* is_taken = nullptr;  // one: 1 or 0
    LossSums* batch = nullptr;     // one: the losses of the step
    StepRecord* record = nullptr;  // one
    double* partials = nullptr;    // [piece_count], holds nothing between launches
    unsigned* ticket = nullptr;    // one; zero before a launch and left zero after it
};

// Computes  squares[t] = Σ g² over tensor t; n[t] = sqrt(squares[t])
//           scales[t] = f[t]·c; f[t] = 1 / (n[t] + 1e-7) if normalize, else 1
//           c = min(1, clip_norm / sqrt(Σ_t (f[t]·n[t])²)) if clip_norm > 0, else 1
//           is_taken = every squares[t] and batch->loss are finite
//           taken: record->losses += *batch; else record counts the step, and keeps its number and
//           its first bad tensor if it is the first
// Shapes    gradients: the arena of `arena`, any pieces, none included; what lies between tensors
//           is not read; state: one, on the device
// Writes    overwrites squares, scales (of no meaning when the step is not taken) and is_taken,
//           updates record, zeroes *batch; nothing may overlap. Throws std::invalid_argument when
//           clip_norm is negative or NaN.
// Numerics  squares and sums in double, where the square of a float is exact and does not overflow,
//           so that a sum is finite if and only if every element is; in a fixed order. scales are
//           rounded once to float.
// Cost      4 bytes and 2 flops (double) an element; bound by memory bandwidth, or by latency where
//           there are few pieces
// Launch    a block of 256 threads a piece, 80 bytes of shared memory; the last block to finish
//           adds up the pieces and decides
void gradient_statistics(const ArenaTable& arena, const float* gradients,
                         const GradientRules& rules, const StepState* state,
                         const GradientStatistics& statistics, cudaStream_t stream);

}  // namespace vae::kernels
