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
LikelihoodOp<GaussianPixel, kBackward> make_op(const LikelihoodInput& in, double sigma,
                                               const LikelihoodGradient& gradient, float* recon,
                                               const char* launcher) {
    require(sigma > 0 && std::isfinite(sigma), launcher, "sigma must be positive and finite");
    const GaussianPixel pixel = {static_cast<float>(1 / sigma),
                                 static_cast<float>(1 / (sigma * sigma))};
    auto op = likelihood_op<kBackward>(pixel, in, gradient, recon);
    op.row_constant = in.pixels * (std::log(sigma) + kHalfLogTwoPi);
    return op;
}

}  // namespace

void gaussian_forward(const LikelihoodInput& in, double sigma, float* recon, const Scratch& scratch,
                      cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_forward";
    const auto op = make_op<false>(in, sigma, {}, recon, kLauncher);
    launch_likelihood(kLauncher, op, in, scratch, stream);
}

void gaussian_forward_backward(const LikelihoodInput& in, double sigma,
                               const LikelihoodGradient& gradient, float* recon,
                               const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "gaussian_forward_backward";
    const auto op = make_op<true>(in, sigma, gradient, recon, kLauncher);
    launch_likelihood(kLauncher, op, in, scratch, stream);
}

void add_bias(const float* product, const float* bias, int rows, int cols, float* out,
              cudaStream_t stream) {
    launch_biased<Identity>("add_bias", product, bias, rows, cols, out, stream);
}

}  // namespace vae::kernels
