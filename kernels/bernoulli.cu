#include "kernels/bernoulli.h"

#include "kernels/bernoulli.cuh"
#include "kernels/elementwise.cuh"

namespace vae::kernels {

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
