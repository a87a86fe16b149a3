// One pass over an array without rows, by fours where accesses of four elements are possible.
//
// An Op is a struct passed to the kernel by value, with
//   template <int V> struct Loaded;                            what is read of V elements
//   Loaded<V> load<V>(std::size_t first) const;                those from `first` on
//   void apply<V>(std::size_t first, const Loaded<V>&) const;  stores
//
// Several elements are loaded before the first is applied. So an output may be the input at the
// same element, and nothing more.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"

namespace vae::kernels {

inline constexpr unsigned kFlatThreads = 256;
inline constexpr unsigned kFlatPerThread = 8;
inline constexpr std::size_t kFlatPerBlock = std::size_t{kFlatThreads} * kFlatPerThread;

// `count` elements of a block from `first` on.
template <int V, class Op>
__device__ inline void flat_block(const Op& op, std::size_t first, unsigned count) {
    constexpr unsigned kAtOnce = kFlatPerThread / V;  // accesses in flight
    typename Op::template Loaded<V> loaded[kAtOnce];
#pragma unroll
    for (unsigned u = 0; u < kAtOnce; ++u) {
        const unsigned i = (u * kFlatThreads + threadIdx.x) * V;
        if (i < count) loaded[u] = op.template load<V>(first + i);
    }
#pragma unroll
    for (unsigned u = 0; u < kAtOnce; ++u) {
        const unsigned i = (u * kFlatThreads + threadIdx.x) * V;
        if (i < count) op.template apply<V>(first + i, loaded[u]);
    }
}

template <class Op>
__global__ void __launch_bounds__(kFlatThreads)
    flat_kernel(const Op op, std::size_t size, bool by_fours) {
    const std::size_t first = blockIdx.x * kFlatPerBlock;
    const std::size_t left = size - first;
    const auto count = static_cast<unsigned>(left < kFlatPerBlock ? left : kFlatPerBlock);
    if (by_fours && count % 4 == 0) {
        flat_block<4>(op, first, count);
    } else {
        flat_block<1>(op, first, count);
    }
}

// by_fours: whether four elements of every array can be accessed at a time.
template <class Op>
void launch_flat(const char* launcher, const Op& op, std::size_t size, bool by_fours,
                 cudaStream_t stream) {
    if (size == 0) return;
    const std::size_t blocks = (size - 1) / kFlatPerBlock + 1;
    require(blocks <= std::numeric_limits<int>::max(), launcher, "the array is too large");
    launch(launcher, flat_kernel<Op>, {dim3(static_cast<unsigned>(blocks)), dim3(kFlatThreads)},
           stream, op, size, by_fours);
}

}  // namespace vae::kernels
