// Scalar functions that more than one kernel needs. NaN in gives NaN out.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// Not fmin and fmax, which would drop a NaN.
__device__ inline float clamp(float value, float low, float high) {
    if (value < low) return low;
    return value > high ? high : value;
}

// 1 / (1 + exp(−x)) given e = exp(−|x|): never overflows, and keeps its relative accuracy for
// large negative x.
__device__ inline float sigmoid_from(float x, float e) {
    const float inverse = 1.0f / (1.0f + e);
    return x >= 0 ? inverse : e * inverse;
}

__device__ inline float sigmoid(float x) {
    return sigmoid_from(x, expf(-fabsf(x)));
}

// Of a·sigmoid g, by a and by g; the latter a·s·(1 − s) by e/(1 + e)² with e = exp(−|g|), which
// loses no digits where s is near 1.
struct GatedSlopes {
    float linear;
    float gate;
};
__device__ inline GatedSlopes gated_slopes(float a, float g) {
    const float e = expf(-fabsf(g));
    const float inverse = 1.0f / (1.0f + e);
    return {g >= 0 ? inverse : e * inverse, a * (e * inverse * inverse)};
}

// raw bounded smoothly on both sides: least + softplus(u − least), u = most − softplus(most − raw),
// and its derivative. Written so that a value well inside keeps its own relative accuracy.
__device__ inline float bounded(float raw, float least, float most, float& slope) {
    const float room = most - raw;
    const float room_e = expf(-fabsf(room));
    const float u = (room < 0 ? most : raw) - log1pf(room_e);
    const float excess = u - least;
    const float excess_e = expf(-fabsf(excess));
    slope = sigmoid_from(room, room_e) * sigmoid_from(excess, excess_e);
    return (excess < 0 ? least : u) + log1pf(excess_e);
}

struct Identity {
    static __device__ float value(float pre) { return pre; }
};

struct Exponential {
    static __device__ float value(float pre) { return expf(pre); }
};

// log2(1 + x)/8
struct LogCount {
    static __device__ float value(float x) {
        constexpr float kFactor = 0.18033688011112043f;  // 1/(8 ln 2)
        return log1pf(x) * kFactor;
    }
};

struct Sigmoid {
    static __device__ float value(float pre) { return sigmoid(pre); }
};

}  // namespace vae::kernels
