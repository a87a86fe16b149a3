// Sums of the per-example losses, kept on the device until somebody asks.
#pragma once

#include <cuda_runtime.h>

#include "kernels/step_state.h"

namespace vae::kernels {

// Sums over examples, in nats.
struct LossSums {
    double recon;
    double kl;
    double loss;
    unsigned long long examples;
};

// Computes  totals += (Σ recon, Σ kl, Σ loss, rows); without loss, Σ recon + beta·Σ kl in its
//           place, beta times that of `state` if it is not null
// Shapes    recon[rows], kl[rows]; loss[rows] or null; totals, state: one, on the device; any
//           rows >= 0
// Writes    accumulates in totals, which may not overlap anything; nothing if rows is 0
// Numerics  double, in a fixed order
// Cost      8 or 12 bytes and 2 or 3 flops a row; bound by latency
// Launch    one block of 512 threads, 384 bytes of shared memory
void add_losses(const float* recon, const float* kl, const float* loss, int rows, double beta,
                const StepState* state, LossSums* totals, cudaStream_t stream);

}  // namespace vae::kernels
