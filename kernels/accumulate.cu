#include "kernels/accumulate.h"

#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kPerThread = 8;
constexpr std::size_t kPerBlock = std::size_t{kThreads} * kPerThread;

// From a block's first element on, `count` of them.
template <int V>
__device__ inline void add_some(const float* part, unsigned count, float* total) {
    constexpr unsigned kAtOnce = kPerThread / V;  // accesses in flight
    Pack<V> sums[kAtOnce];
    Pack<V> parts[kAtOnce];
#pragma unroll
    for (unsigned u = 0; u < kAtOnce; ++u) {
        const unsigned i = (u * kThreads + threadIdx.x) * V;
        if (i >= count) continue;
        sums[u] = load_pack<V>(total + i);
        parts[u] = load_pack<V>(part + i);
    }
#pragma unroll
    for (unsigned u = 0; u < kAtOnce; ++u) {
        const unsigned i = (u * kThreads + threadIdx.x) * V;
        if (i >= count) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) sums[u].v[v] += parts[u].v[v];
        store_pack<V>(total + i, sums[u]);
    }
}

__global__ void __launch_bounds__(kThreads)
    accumulate_kernel(const float* part, std::size_t size, bool are_aligned, float* total) {
    const std::size_t first = blockIdx.x * kPerBlock;
    const std::size_t left = size - first;
    const auto count = static_cast<unsigned>(left < kPerBlock ? left : kPerBlock);
    if (are_aligned && count % 4 == 0) {
        add_some<4>(part + first, count, total + first);
    } else {
        add_some<1>(part + first, count, total + first);
    }
}

}  // namespace

void accumulate(const float* part, std::size_t size, float* total, cudaStream_t stream) {
    constexpr const char* kLauncher = "accumulate";
    if (size == 0) return;
    const std::size_t blocks = (size - 1) / kPerBlock + 1;
    require(blocks <= std::numeric_limits<int>::max(), kLauncher, "the array is too large");
    launch(kLauncher, accumulate_kernel, {dim3(static_cast<unsigned>(blocks)), dim3(kThreads)},
           stream, part, size, aligned_to_four(part, total), total);
}

}  // namespace vae::kernels
