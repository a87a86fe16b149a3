#include "kernels/gated.h"

#include <limits>

#include "kernels/functions.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

// Over the columns [0, cols) of h.
template <class T>
struct GatedForwardOp {
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = false;
    template <int V>
    struct Columns {
        Pack<V> linear;
        Pack<V> gate;
    };
    template <int V>
    struct Loaded {
        StoredPack<V, T> linear;
        StoredPack<V, T> gate;
    };

    GatedView layer;
    const T* product;
    T* h;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return {load_pack<V>(layer.bias + col), load_pack<V>(layer.gate_bias + col)};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        const std::size_t stride = static_cast<std::size_t>(layer.stride);
        const T* const linear = product + row * 2 * stride + col;
        return {load_stored<V>(linear), load_stored<V>(linear + stride)};
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& biases,
                          const Loaded<V>& loaded, float&, float (&)[V]) const {
        const Pack<V> linear = widened(loaded.linear);
        const Pack<V> gate = widened(loaded.gate);
        Pack<V> result;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            result.v[i] =
                (linear.v[i] + biases.linear.v[i]) * sigmoid(gate.v[i] + biases.gate.v[i]);
        }
        store_floats<V>(h + row * static_cast<std::size_t>(layer.cols) + col, result);
    }
};

// Both parts' gradients at an element need both parts' products there, and may take their place: so
// one thread has them. Its four columns 4k … 4k+3 of the tile are elements 2k and 2k+1 of the
// linear part, then of the gate.
template <bool kPairs, class T>
struct GatedBackwardOp {
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = true;
    using Pair = Pack<2>;
    template <int V>
    struct Columns {
        unsigned first;  // element of the first column
        unsigned count;  // of elements that are no padding: 0, 1 or 2
        Pair bias;
        Pair gate_bias;
    };
    template <int V>
    struct Loaded {
        Pair linear;
        Pair gate;
        Pair d_h;
    };

    GatedView layer;
    const T* product;
    const T* d_h;
    T* d_product;
    float* d_bias;
    float* d_gate_bias;

    // `count` elements; the rest is zero.
    template <class Element>
    static __device__ Pair load_some(const Element* address, unsigned count) {
        if (kPairs && count == 2) return load_floats<2>(address);
        Pair result = {};
        if (count > 0) result.v[0] = load_floats<1>(address).v[0];
        if (count > 1) result.v[1] = load_floats<1>(address + 1).v[0];
        return result;
    }
    static __device__ void store_both(T* address, const Pair& pair) {
        if (kPairs) {
            store_floats<2>(address, pair);
        } else {
            store_floats<1>(address, {{pair.v[0]}});
            store_floats<1>(address + 1, {{pair.v[1]}});
        }
    }

    __device__ std::size_t stride() const { return static_cast<std::size_t>(layer.stride); }
    __device__ unsigned cols() const { return static_cast<unsigned>(layer.cols); }

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        static_assert(V == 4);
        const unsigned first = col / 2;
        const unsigned count = first >= cols() ? 0 : first + 1 == cols() ? 1 : 2;
        return {first, count, load_some(layer.bias + first, count),
                load_some(layer.gate_bias + first, count)};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned, const Columns<V>& columns) const {
        const T* const linear = product + row * 2 * stride() + columns.first;
        const T* const upstream = d_h + row * static_cast<std::size_t>(cols()) + columns.first;
        return {load_some(linear, columns.count), load_some(linear + stride(), columns.count),
                load_some(upstream, columns.count)};
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&column_sums)[V]) const {
        Pair d_linear = {};
        Pair d_gate = {};
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            if (i >= columns.count) continue;
            const GatedSlopes slopes = gated_slopes(loaded.linear.v[i] + columns.bias.v[i],
                                                    loaded.gate.v[i] + columns.gate_bias.v[i]);
            d_linear.v[i] = loaded.d_h.v[i] * slopes.linear;
            d_gate.v[i] = loaded.d_h.v[i] * slopes.gate;
            column_sums[i] += d_linear.v[i];
            column_sums[2 + i] += d_gate.v[i];
        }
        T* const linear = d_product + row * 2 * stride() + columns.first;
        store_both(linear, d_linear);
        store_both(linear + stride(), d_gate);
    }
    __device__ void store_column(unsigned col, double sum) const {
        const unsigned element = col / 4 * 2 + col % 2;
        if (element < cols()) {
            (col % 4 < 2 ? d_bias : d_gate_bias)[element] = static_cast<float>(sum);
        }
    }
};

void require_gated(const GatedView& layer, const char* launcher) {
    require_shape(layer.rows, layer.cols, launcher);
    require(layer.stride >= layer.cols, launcher, "stride must not be less than cols");
    require(layer.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
}

}  // namespace

void gated_forward(const GatedView& layer, Reals h, cudaStream_t stream) {
    constexpr const char* kLauncher = "gated_forward";
    require_gated(layer, kLauncher);
    if (layer.rows == 0 || layer.cols == 0) return;
    with_storage(kLauncher, {layer.product, h}, [&](auto element) {
        using T = decltype(element);
        const GatedForwardOp<T> op{layer, layer.product.of<T>(), h.of<T>()};
        const bool wide = layer.cols % 4 == 0 && layer.stride % 4 == 0 &&
                          aligned_to_four(op.product, layer.bias, layer.gate_bias, op.h);
        launch_tiles(kLauncher, op, layer.rows, layer.cols, wide, Scratch{}, stream);
    });
}

void gated_backward(const GatedView& layer, ConstReals d_h, Reals d_product, float* d_bias,
                    float* d_gate_bias, const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "gated_backward";
    require_gated(layer, kLauncher);
    require(layer.stride % 2 == 0, kLauncher, "stride must be even");
    if (layer.stride == 0) return;
    if (layer.rows == 0) {
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(layer.cols);
        if (bytes == 0) return;
        cuda_check(cudaMemsetAsync(d_bias, 0, bytes, stream), kLauncher);
        cuda_check(cudaMemsetAsync(d_gate_bias, 0, bytes, stream), kLauncher);
        return;
    }
    with_storage(kLauncher, {layer.product, d_h, d_product}, [&](auto element) {
        using T = decltype(element);
        const T* const product = layer.product.of<T>();
        const T* const upstream = d_h.of<T>();
        T* const result = d_product.of<T>();
        const auto run = [&](const auto& op) {
            launch_tiles_of<4>(kLauncher, op, layer.rows, 2 * layer.stride, scratch, stream);
        };
        if (layer.cols % 2 == 0 &&
            aligned_to_four(product, layer.bias, layer.gate_bias, upstream, result)) {
            run(GatedBackwardOp<true, T>{layer, product, upstream, result, d_bias, d_gate_bias});
        } else {
            run(GatedBackwardOp<false, T>{layer, product, upstream, result, d_bias, d_gate_bias});
        }
    });
}

}  // namespace vae::kernels
