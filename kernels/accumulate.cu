#include "kernels/accumulate.h"

#include "kernels/flat.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

struct AccumulateOp {
    template <int V>
    struct Loaded {
        Pack<V> part;
        Pack<V> total;
    };

    const float* part;
    float* total;

    template <int V>
    __device__ Loaded<V> load(std::size_t first) const {
        return {load_pack<V>(part + first), load_pack<V>(total + first)};
    }
    template <int V>
    __device__ void apply(std::size_t first, const Loaded<V>& loaded) const {
        Pack<V> sum;
#pragma unroll
        for (int i = 0; i < V; ++i) sum.v[i] = loaded.total.v[i] + loaded.part.v[i];
        store_pack<V>(total + first, sum);
    }
};

}  // namespace

void accumulate(const float* part, std::size_t size, float* total, cudaStream_t stream) {
    launch_flat("accumulate", AccumulateOp{part, total}, size, aligned_to_four(part, total),
                stream);
}

}  // namespace vae::kernels
