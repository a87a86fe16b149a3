#include "kernels/gaussian_variance.h"

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/shared_memory.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 512;
constexpr std::size_t kMemory = kThreads / kWarpSize * sizeof(double);

__device__ double softplus(double a) {
    return (a < 0 ? 0.0 : a) + log1p(exp(-fabs(a)));  // NaN passes
}

__device__ double sigmoid_of(double a) {
    return 1 / (1 + exp(-a));
}

__global__ void bounded_kernel(const float* parameter, double least, double most,
                               GaussianVariance* variance) {
    const double raw = *parameter;
    const double u = most - softplus(most - raw);
    const double logvar = least + softplus(u - least);
    *variance = {logvar, exp(-logvar), sigmoid_of(most - raw) * sigmoid_of(u - least), 0};
}

__global__ void exact_kernel(const float* parameter, GaussianVariance* variance) {
    const double logvar = *parameter;
    *variance = {logvar, exp(-logvar), 1, 0};
}

__global__ void __launch_bounds__(kThreads)
    optimal_kernel(const float* squares, unsigned rows, double elements, double least,
                   const float* parameter, GaussianVariance* variance) {
    double sum = 0;
    for (unsigned row = threadIdx.x; row < rows; row += kThreads) sum += squares[row];
    sum = block_sum(sum, dynamic_shared<double>());
    if (threadIdx.x != 0) return;
    const double best = log(sum / elements);
    const double logvar = best < least ? least : best;  // NaN passes
    *variance = {logvar, exp(-logvar), 0, *parameter};
}

__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const float* squares, const float* row_weight, unsigned rows, double pixels,
                    double scale, const GaussianVariance* variance, float* d_parameter) {
    const double precision = variance->precision;
    double sum = 0;
    for (unsigned row = threadIdx.x; row < rows; row += kThreads) {
        const double weight = row_weight == nullptr ? 1.0 : row_weight[row];
        sum += weight * (pixels - squares[row] * precision);
    }
    sum = block_sum(sum, dynamic_shared<double>());
    if (threadIdx.x == 0) *d_parameter = static_cast<float>(0.5 * scale * variance->slope * sum);
}

__global__ void average_kernel(const GaussianVariance* variance, double decay,
                               const unsigned* is_taken, float* parameter, double ema_decay,
                               float* ema) {
    if (*is_taken == 0) return;
    const double before = variance->average;
    const double mixed = before == 0
                             ? variance->logvar
                             : log(decay * exp(before) + (1 - decay) * exp(variance->logvar));
    const bool is_finite = mixed - mixed == 0;  // not for NaN or infinity
    const double next = is_finite ? mixed : before;
    if (ema != nullptr) {
        *ema = static_cast<float>(*ema + (1 - ema_decay) * (next - *parameter));
    }
    *parameter = static_cast<float>(next);
}

const LaunchShape kOneThread = {dim3(1), dim3(1), 0};
const LaunchShape kOneBlock = {dim3(1), dim3(kThreads), kMemory};

}  // namespace

void gaussian_bounded_variance(const float* parameter, double least, double most,
                               GaussianVariance* variance, cudaStream_t stream) {
    require(least < most, "gaussian_bounded_variance", "the bounds are in the wrong order");
    launch("gaussian_bounded_variance", bounded_kernel, kOneThread, stream, parameter, least, most,
           variance);
}

void gaussian_exact_variance(const float* parameter, GaussianVariance* variance,
                             cudaStream_t stream) {
    launch("gaussian_exact_variance", exact_kernel, kOneThread, stream, parameter, variance);
}

void gaussian_optimal_variance(const float* squares, int rows, int pixels, double least,
                               const float* parameter, GaussianVariance* variance,
                               cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_optimal_variance";
    require(rows >= 1 && pixels >= 1, kLauncher, "there must be rows and pixels");
    launch(kLauncher, optimal_kernel, kOneBlock, stream, squares, static_cast<unsigned>(rows),
           static_cast<double>(rows) * pixels, least, parameter, variance);
}

void gaussian_variance_gradient(const float* squares, const float* row_weight, int rows, int pixels,
                                float scale, const GaussianVariance* variance, float* d_parameter,
                                cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_variance_gradient";
    require_shape(rows, pixels, kLauncher);
    launch(kLauncher, gradient_kernel, kOneBlock, stream, squares, row_weight,
           static_cast<unsigned>(rows), static_cast<double>(pixels), static_cast<double>(scale),
           variance, d_parameter);
}

void gaussian_average_variance(const GaussianVariance* variance, double decay,
                               const unsigned* is_taken, float* parameter, double ema_decay,
                               float* ema, cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_average_variance";
    require(decay >= 0 && decay < 1, kLauncher, "decay must lie in [0, 1)");
    launch(kLauncher, average_kernel, kOneThread, stream, variance, decay, is_taken, parameter,
           ema_decay, ema);
}

}  // namespace vae::kernels
