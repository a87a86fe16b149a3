// The largest of values over a warp.
#pragma once

#include <cuda_runtime.h>

#include "kernels/reduce.cuh"

namespace vae::kernels {

// Not fmax: a NaN of `a` stays.
__device__ inline double larger(double a, double b) {
    return b > a ? b : a;
}

// In every lane. All 32 lanes must call it together.
__device__ inline double warp_largest(double value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        value = larger(value, __shfl_xor_sync(kFullWarp, value, distance));
    }
    return value;
}

}  // namespace vae::kernels
