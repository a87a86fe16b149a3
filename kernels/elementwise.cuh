// out = f(product + bias) over [rows, cols], where rows of product may be longer and the bias may
// be null for none, as an Op of kernels/tile.cuh. From and To are float or Bf16.
#pragma once

#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {

// Function has `static __device__ float value(float pre)`.
template <class Function, class From, class To>
struct BiasedOp {
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = false;
    template <int V>
    using Columns = Pack<V>;
    template <int V>
    using Loaded = StoredPack<V, From>;

    const From* product;
    std::size_t stride;
    const float* bias;
    To* out;
    std::size_t cols;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return bias == nullptr ? Columns<V>{} : load_pack<V>(bias + col);
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        return load_stored<V>(product + row * stride + col);
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& biases,
                          const Loaded<V>& loaded, float&, float (&)[V]) const {
        const Pack<V> values = widened(loaded);
        Pack<V> result;
#pragma unroll
        for (int i = 0; i < V; ++i) result.v[i] = Function::value(values.v[i] + biases.v[i]);
        store_floats<V>(out + row * cols + col, result);
    }
};

template <class Function, class From, class To>
void launch_biased(const char* launcher, const From* product, const float* bias, int rows,
                   int stride, int cols, To* out, cudaStream_t stream) {
    require_shape(rows, cols, launcher);
    require(stride >= cols, launcher, "a row has fewer columns than are read");
    if (rows == 0 || cols == 0) return;
    const BiasedOp<Function, From, To> op{product, static_cast<std::size_t>(stride), bias, out,
                                          static_cast<std::size_t>(cols)};
    const bool wide = cols % 4 == 0 && stride % 4 == 0 && aligned_to_four(product, bias, out);
    launch_tiles(launcher, op, rows, cols, wide, Scratch{}, stream);
}

template <class Function, class From, class To>
void launch_biased(const char* launcher, const From* product, const float* bias, int rows, int cols,
                   To* out, cudaStream_t stream) {
    launch_biased<Function>(launcher, product, bias, rows, cols, cols, out, stream);
}

}  // namespace vae::kernels
