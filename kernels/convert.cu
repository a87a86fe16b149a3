#include "kernels/convert.h"

#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kAtOnce = 2;  // accesses in flight
constexpr std::size_t kPerBlock = std::size_t{4} * kThreads * kAtOnce;

// From a block's first element on, `count` of them.
template <int V>
__device__ inline void round_some(const float* values, unsigned count, Bf16* rounded) {
    Pack<V> loaded[kAtOnce * 4 / V];
#pragma unroll
    for (unsigned u = 0; u < kAtOnce * 4 / V; ++u) {
        const unsigned i = (u * kThreads + threadIdx.x) * V;
        if (i < count) loaded[u] = load_pack<V>(values + i);
    }
#pragma unroll
    for (unsigned u = 0; u < kAtOnce * 4 / V; ++u) {
        const unsigned i = (u * kThreads + threadIdx.x) * V;
        if (i < count) store_floats<V>(rounded + i, loaded[u]);
    }
}

__global__ void __launch_bounds__(kThreads)
    round_kernel(const float* values, std::size_t size, bool are_aligned, Bf16* rounded) {
    const std::size_t first = blockIdx.x * kPerBlock;
    const std::size_t left = size - first;
    const auto count = static_cast<unsigned>(left < kPerBlock ? left : kPerBlock);
    if (are_aligned && count % 4 == 0) {
        round_some<4>(values + first, count, rounded + first);
    } else {
        round_some<1>(values + first, count, rounded + first);
    }
}

}  // namespace

void round_to_bf16(const float* values, std::size_t size, Bf16* rounded, cudaStream_t stream) {
    constexpr const char* kLauncher = "round_to_bf16";
    if (size == 0) return;
    const std::size_t blocks = (size - 1) / kPerBlock + 1;
    require(blocks <= std::numeric_limits<int>::max(), kLauncher, "the array is too large");
    launch(kLauncher, round_kernel, {dim3(static_cast<unsigned>(blocks)), dim3(kThreads)}, stream,
           values, size, aligned_to_four(values, rounded), rounded);
}

}  // namespace vae::kernels
