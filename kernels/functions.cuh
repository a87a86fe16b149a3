// Scalar functions that more than one kernel needs. NaN in gives NaN out.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// 1 / (1 + exp(−x)) given e = exp(−|x|): never overflows, and keeps its relative accuracy for
// large negative x.
__device__ inline float sigmoid_from(float x, float e) {
    const float inverse = 1.0f / (1.0f + e);
    return x >= 0 ? inverse : e * inverse;
}

__device__ inline float sigmoid(float x) {
    return sigmoid_from(x, expf(-fabsf(x)));
}

struct Identity {
    static __device__ float value(float pre) { return pre; }
};

struct Sigmoid {
    static __device__ float value(float pre) { return sigmoid(pre); }
};

}  // namespace vae::kernels
