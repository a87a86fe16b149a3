// The one variance of a Gaussian likelihood, kept on the device: where it comes from, and its
// gradient. All run in one block and are bound by latency; numerics are double.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

struct GaussianVariance {
    double logvar = 0;
    double precision = 1;  // exp(−logvar)
    double slope = 0;      // d logvar / d parameter
    double average = 0;    // of gaussian_optimal_variance: decoder.logvar before the step
};

// Computes  logvar = bounded(parameter, least, most), and slope; see bounded in maths.md
// Shapes    parameter, variance: one each, on the device
// Writes    overwrites variance, its precision too
// Cost      one thread
// Launch    one thread
void gaussian_bounded_variance(const float* parameter, double least, double most,
                               GaussianVariance* variance, cudaStream_t stream);

// Computes  logvar = parameter
// Shapes, Writes, Cost, Launch   as above
void gaussian_exact_variance(const float* parameter, GaussianVariance* variance,
                             cudaStream_t stream);

// Computes  logvar = max(log(Σ_r squares[r] / (rows·pixels)), least); average = parameter
// Shapes    squares[rows]; parameter, variance: one each; rows, pixels >= 1
// Writes    overwrites variance; its slope is 0
// Numerics  double, in a fixed order. NaN comes through.
// Cost      4 bytes and a flop a row
// Launch    one block of 512 threads, 128 bytes of shared memory
void gaussian_optimal_variance(const float* squares, int rows, int pixels, double least,
                               const float* parameter, GaussianVariance* variance,
                               cudaStream_t stream);

// Computes  d_parameter = slope·Σ_r scale·row_weight[r]·½(pixels − squares[r]·exp(−logvar))
// Shapes    squares, row_weight (null: all 1) [rows]; variance, d_parameter: one each
// Writes    overwrites d_parameter, with zero if rows is 0
// Numerics  double, in a fixed order. NaN comes through.
// Cost      8 bytes and 4 flops a row
// Launch    one block of 512 threads, 128 bytes of shared memory
void gaussian_variance_gradient(const float* squares, const float* row_weight, int rows, int pixels,
                                float scale, const GaussianVariance* variance, float* d_parameter,
                                cudaStream_t stream);

// Computes  nothing if *is_taken is 0; else new = log(decay·exp(average) + (1 − decay)·exp(logvar))
//           of what gaussian_optimal_variance left, or logvar where average is 0, that of no step;
//           average itself where that is not finite. ema += (1 − ema_decay)·(new − parameter): what
//           the optimiser averaged in was the parameter. parameter = new
// Shapes    variance, is_taken, parameter, ema (may be null): one each
// Writes    overwrites parameter and ema
// Cost      one thread
// Launch    one thread
void gaussian_average_variance(const GaussianVariance* variance, double decay,
                               const unsigned* is_taken, float* parameter, double ema_decay,
                               float* ema, cudaStream_t stream);

}  // namespace vae::kernels
