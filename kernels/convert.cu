#include "kernels/convert.h"

#include "kernels/flat.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

struct RoundOp {
    template <int V>
    using Loaded = Pack<V>;

    const float* values;
    Bf16* rounded;

    template <int V>
    __device__ Loaded<V> load(std::size_t first) const {
        return load_pack<V>(values + first);
    }
    template <int V>
    __device__ void apply(std::size_t first, const Loaded<V>& loaded) const {
        store_floats<V>(rounded + first, loaded);
    }
};

}  // namespace

void round_to_bf16(const float* values, std::size_t size, Bf16* rounded, cudaStream_t stream) {
    launch_flat("round_to_bf16", RoundOp{values, rounded}, size, aligned_to_four(values, rounded),
                stream);
}

}  // namespace vae::kernels
