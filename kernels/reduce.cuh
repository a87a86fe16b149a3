// Sums whose order is fixed by the thread's position, so that they are the same every time.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kFullWarp = 0xffffffffu;

// The sum over the warp, in every lane. All 32 lanes must call it together. Butterfly order: in
// step s each lane adds the value of the lane whose number differs in bit s, highest bit first.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(kFullWarp, value, distance);
    }
    return value;
}

// The sum over a block of whole warps, valid in thread 0. All threads must call it together.
// memory has a T for each warp; a barrier must lie between two calls that share it.
template <class T>
__device__ inline T block_sum(T value, T* memory) {
    const unsigned warps = blockDim.x / kWarpSize;
    value = warp_sum(value);
    if (threadIdx.x % kWarpSize == 0) memory[threadIdx.x / kWarpSize] = value;
    __syncthreads();
    T total = 0;
    if (threadIdx.x == 0) {
        for (unsigned warp = 0; warp < warps; ++warp) total += memory[warp];
    }
    return total;
}

// Takes a ticket. True for the last of `count`, who also puts the tickets back to zero.
__device__ inline bool take_last_ticket(unsigned* ticket, unsigned count) {
    const bool last = atomicAdd(ticket, 1u) == count - 1;
    if (last) *ticket = 0;
    return last;
}

}  // namespace vae::kernels
