#include "kernels/bias_activation.h"

#include "kernels/activation.cuh"
#include "kernels/elementwise.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

// d_pre = d_h · f'(product + bias) and its column sums, of what d_pre is before it is stored as T.
template <class Function, class T>
struct ActivationBackwardOp {
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = true;
    template <int V>
    using Columns = Pack<V>;
    template <int V>
    struct Loaded {
        StoredPack<V, T> product;
        StoredPack<V, T> d_h;
    };

    const T* product;
    const float* bias;
    const T* d_h;
    std::size_t cols;
    T* d_pre;
    float* d_bias;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return bias == nullptr ? Columns<V>{} : load_pack<V>(bias + col);
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        const std::size_t offset = row * cols + col;
        return {load_stored<V>(product + offset), load_stored<V>(d_h + offset)};
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& biases,
                          const Loaded<V>& loaded, float&, float (&column_sums)[V]) const {
        const Pack<V> product_here = widened(loaded.product);
        const Pack<V> d_h_here = widened(loaded.d_h);
        Pack<V> d;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            d.v[i] = d_h_here.v[i] * Function::slope(product_here.v[i] + biases.v[i]);
            column_sums[i] += d.v[i];
        }
        store_floats<V>(d_pre + row * cols + col, d);
    }
    __device__ void store_column(unsigned col, double sum) const {
        d_bias[col] = static_cast<float>(sum);
    }
};

}  // namespace

void bias_activation_forward(Activation f, ConstReals product, const float* bias, int rows,
                             int cols, Reals h, cudaStream_t stream) {
    constexpr const char* kLauncher = "bias_activation_forward";
    with_storage(kLauncher, {product, h}, [&](auto element) {
        using T = decltype(element);
        with_function(f, kLauncher, [&](auto function) {
            launch_biased<decltype(function)>(kLauncher, product.of<T>(), bias, rows, cols,
                                              h.of<T>(), stream);
        });
    });
}

void bias_activation_backward(Activation f, ConstReals product, const float* bias, ConstReals d_h,
                              int rows, int cols, Reals d_pre, float* d_bias,
                              const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "bias_activation_backward";
    require_shape(rows, cols, kLauncher);
    if (cols == 0) return;
    const auto width = static_cast<std::size_t>(cols);
    if (rows == 0) {
        cuda_check(cudaMemsetAsync(d_bias, 0, sizeof(float) * width, stream), kLauncher);
        return;
    }
    with_storage(kLauncher, {product, d_h, d_pre}, [&](auto element) {
        using T = decltype(element);
        with_function(f, kLauncher, [&](auto function) {
            const ActivationBackwardOp<decltype(function), T> op{
                product.of<T>(), bias, d_h.of<T>(), width, d_pre.of<T>(), d_bias};
            const bool wide = cols % 4 == 0 && aligned_to_four(op.product, bias, op.d_h, op.d_pre);
            launch_tiles(kLauncher, op, rows, cols, wide, scratch, stream);
        });
    });
}

}  // namespace vae::kernels
