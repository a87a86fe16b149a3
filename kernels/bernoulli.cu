#include "kernels/bernoulli.h"

#include "kernels/elementwise.cuh"
#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"

namespace vae::kernels {
namespace {

// One exponential serves the loss and the sigmoid. fmaxf drops a NaN, but l·x brings it back.
struct BernoulliPixel {
    __device__ void operator()(float l, float x, float& loss, float& gradient) const {
        const float e = expf(-fabsf(l));
        loss = fmaxf(l, 0.0f) - l * x + log1pf(e);
        gradient = sigmoid_from(l, e) - x;
    }
};

}  // namespace

void bernoulli_forward(const float* product, const float* bias, const float* x, int rows, int cols,
                       float* recon, const Scratch& scratch, cudaStream_t stream) {
    const auto op =
        likelihood_op<BernoulliPixel, false>(BernoulliPixel{}, product, bias, x, cols, recon);
    launch_likelihood("bernoulli_forward", op, rows, cols, scratch, stream);
}

void bernoulli_forward_backward(const float* product, const float* bias, const float* x, int rows,
                                int cols, float scale, float* recon, float* d_product,
                                float* d_bias, const Scratch& scratch, cudaStream_t stream) {
    auto op = likelihood_op<BernoulliPixel, true>(BernoulliPixel{}, product, bias, x, cols, recon);
    op.scale = scale;
    op.d_product = d_product;
    op.d_bias = d_bias;
    launch_likelihood("bernoulli_forward_backward", op, rows, cols, scratch, stream);
}

void bernoulli_mean(const float* product, const float* bias, int rows, int cols, float* mean,
                    cudaStream_t stream) {
    launch_biased<Sigmoid>("bernoulli_mean", product, bias, rows, cols, mean, stream);
}

}  // namespace vae::kernels
