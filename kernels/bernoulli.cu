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

void bernoulli_forward(const LikelihoodInput& in, float* recon, const Scratch& scratch,
                       cudaStream_t stream) {
    const auto op = likelihood_op<false>(BernoulliPixel{}, in, {}, recon);
    launch_likelihood("bernoulli_forward", op, in, scratch, stream);
}

void bernoulli_forward_backward(const LikelihoodInput& in, const LikelihoodGradient& gradient,
                                float* recon, const Scratch& scratch, cudaStream_t stream) {
    const auto op = likelihood_op<true>(BernoulliPixel{}, in, gradient, recon);
    launch_likelihood("bernoulli_forward_backward", op, in, scratch, stream);
}

void bernoulli_mean(const LikelihoodInput& in, float* mean, cudaStream_t stream) {
    launch_biased<Sigmoid>("bernoulli_mean", in.product, in.bias, in.rows, in.pixels, mean, stream);
}

}  // namespace vae::kernels
