// Sums of the per-example losses, kept on the device until somebody asks.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// Sums over examples, in nats.
struct LossSums {
    double recon;
    double kl;
    double loss;  // recon + beta·kl
};

// Computes  totals += (Σ recon, Σ kl, Σ recon + beta·Σ kl), in double, in a fixed order
// Shapes    recon[rows], kl[rows]; totals: one, on the device
void add_losses(const float* recon, const float* kl, int rows, double beta, LossSums* totals,
                cudaStream_t stream);

}  // namespace vae::kernels
