#include "kernels/gaussian.h"

#include <cmath>

#include "kernels/elementwise.cuh"
#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"

namespace vae::kernels {
namespace {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;

struct GaussianPixel {
    float inverse_sigma;
    float inverse_variance;

    __device__ void operator()(float m, float x, float& loss, float& gradient) const {
        const float difference = m - x;
        const float deviation = difference * inverse_sigma;
        loss = 0.5f * deviation * deviation;
        gradient = difference * inverse_variance;
    }
};

template <bool kBackward>
LikelihoodOp<GaussianPixel, kBackward> make_op(const float* product, const float* bias,
                                               const float* x, int cols, double sigma, float* recon,
                                               const char* launcher) {
    require(sigma > 0 && std::isfinite(sigma), launcher, "sigma must be positive and finite");
    const GaussianPixel pixel = {static_cast<float>(1 / sigma),
                                 static_cast<float>(1 / (sigma * sigma))};
    auto op = likelihood_op<GaussianPixel, kBackward>(pixel, product, bias, x, cols, recon);
    op.row_constant = cols * (std::log(sigma) + kHalfLogTwoPi);
    return op;
}

}  // namespace

void gaussian_forward(const float* product, const float* bias, const float* x, int rows, int cols,
                      double sigma, float* recon, const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_forward";
    const auto op = make_op<false>(product, bias, x, cols, sigma, recon, kLauncher);
    launch_likelihood(kLauncher, op, rows, cols, scratch, stream);
}

void gaussian_forward_backward(const float* product, const float* bias, const float* x, int rows,
                               int cols, double sigma, float scale, float* recon, float* d_product,
                               float* d_bias, const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_forward_backward";
    auto op = make_op<true>(product, bias, x, cols, sigma, recon, kLauncher);
    op.scale = scale;
    op.d_product = d_product;
    op.d_bias = d_bias;
    launch_likelihood(kLauncher, op, rows, cols, scratch, stream);
}

void gaussian_mean(const float* product, const float* bias, int rows, int cols, float* mean,
                   cudaStream_t stream) {
    launch_biased<Identity>("gaussian_mean", product, bias, rows, cols, mean, stream);
}

}  // namespace vae::kernels
