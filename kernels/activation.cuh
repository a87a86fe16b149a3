// What kernels/activation.h names, on the device.
#pragma once

#include "kernels/activation.h"
#include "kernels/check.h"
#include "kernels/functions.cuh"

namespace vae::kernels {

// value is f, slope is f'. A comparison with NaN is false: relu asks so that NaN comes through.
struct Relu {
    static __device__ float value(float x) { return x <= 0 ? 0.0f : x; }
    static __device__ float slope(float x) {
        if (x > 0) return 1.0f;
        return x <= 0 ? 0.0f : x;
    }
};

struct Tanh {
    static __device__ float value(float x) { return tanhf(x); }
    static __device__ float slope(float x) {
        const float t = tanhf(x);
        return 1.0f - t * t;
    }
};

struct Softplus {
    static __device__ float value(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
    static __device__ float slope(float x) { return sigmoid(x); }
};

// x·Φ(x), Φ the normal distribution function. By erfc: 1 + erf(x) would cancel for negative x.
struct Gelu {
    static constexpr float kSqrtHalf = 0.70710678118654752f;
    static constexpr float kInverseSqrtTwoPi = 0.39894228040143268f;
    static __device__ float normal_cdf(float x) { return 0.5f * erfcf(-kSqrtHalf * x); }
    static __device__ float value(float x) { return x * normal_cdf(x); }
    static __device__ float slope(float x) {
        return normal_cdf(x) + x * kInverseSqrtTwoPi * expf(-0.5f * x * x);
    }
};

struct Silu {
    static __device__ float value(float x) { return x * sigmoid(x); }
    static __device__ float slope(float x) {
        const float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
};

// Where f is known at run time alone, and the same for all threads.
__device__ inline float activation_value(Activation f, float x) {
    switch (f) {
        case Activation::tanh:
            return Tanh::value(x);
        case Activation::softplus:
            return Softplus::value(x);
        case Activation::gelu:
            return Gelu::value(x);
        case Activation::silu:
            return Silu::value(x);
        case Activation::relu:
            break;
    }
    return Relu::value(x);
}

__device__ inline float activation_slope(Activation f, float x) {
    switch (f) {
        case Activation::tanh:
            return Tanh::slope(x);
        case Activation::softplus:
            return Softplus::slope(x);
        case Activation::gelu:
            return Gelu::slope(x);
        case Activation::silu:
            return Silu::slope(x);
        case Activation::relu:
            break;
    }
    return Relu::slope(x);
}

// Calls body with the type that implements f.
template <class Body>
void with_function(Activation f, const char* launcher, const Body& body) {
    switch (f) {
        case Activation::relu:
            return body(Relu{});
        case Activation::tanh:
            return body(Tanh{});
        case Activation::softplus:
            return body(Softplus{});
        case Activation::gelu:
            return body(Gelu{});
        case Activation::silu:
            return body(Silu{});
    }
    require(false, launcher, "unknown activation");
}

}  // namespace vae::kernels
