// The Bernoulli likelihood of one pixel.
#pragma once

#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"

namespace vae::kernels {

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

}  // namespace vae::kernels
