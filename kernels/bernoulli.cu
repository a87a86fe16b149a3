#include "kernels/bernoulli.h"

#include "kernels/elementwise.cuh"
#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"

namespace vae::kernels {
namespace {

// One exponential serves the loss and the sigmoid. fmaxf drops a NaN, but l·x brings it back.
struct BernoulliPixel : PlainPixel {
    static constexpr int kOutputs = 1;

    __device__ void operator()(const float (&l)[1], float x, float& loss,
                               float (&gradient)[1]) const {
        const float e = expf(-fabsf(l[0]));
        loss = fmaxf(l[0], 0.0f) - l[0] * x + log1pf(e);
        gradient[0] = sigmoid_from(l[0], e) - x;
    }
};

}  // namespace

void bernoulli_forward(const LikelihoodInput& in, float* recon, const Scratch& scratch,
                       cudaStream_t stream) {
    launch_likelihood<false>("bernoulli_forward", BernoulliPixel{}, in, {}, recon, scratch, stream);
}

void bernoulli_forward_backward(const LikelihoodInput& in, const LikelihoodGradient& gradient,
                                float* recon, const Scratch& scratch, cudaStream_t stream) {
    launch_likelihood<true>("bernoulli_forward_backward", BernoulliPixel{}, in, gradient, recon,
                            scratch, stream);
}

void bernoulli_mean(const LikelihoodInput& in, float* mean, cudaStream_t stream) {
    launch_biased<Sigmoid>("bernoulli_mean", in.product, in.bias, in.rows, in.pixels, mean, stream);
}

}  // namespace vae::kernels
