#include "kernels/activation.cuh"
#include "kernels/dense.h"
#include "kernels/dense_product.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// d_before = sum · f'(before + bias) [rows, in]
template <class T>
struct BackwardEpilogue : PlainEpilogue {
    using Loaded = float;  // before + bias

    Activation f;
    std::size_t in;
    const T* before;
    const float* bias;
    T* d_before;

    __device__ std::size_t offset(int row, int column) const {
        return static_cast<std::size_t>(row) * in + static_cast<std::size_t>(column);
    }
    __device__ Loaded load(int row, int column) const {
        const float product = load_floats<1>(before + offset(row, column)).v[0];
        return bias == nullptr ? product : product + bias[column];
    }
    __device__ void apply(int row, int column, const float (&sums)[1], const Loaded& pre) const {
        store_floats<1>(d_before + offset(row, column),
                        Pack<1>{{sums[0] * activation_slope(f, pre)}});
    }
};

// d_before [rows, 2·stride], of each element of d_h [rows, in] in the linear part and in the
// gate's.
template <class T>
struct GatedBackwardEpilogue : PlainEpilogue {
    struct Loaded {
        float linear;
        float gate;
    };

    DenseGate gate;
    int in;
    const T* before;
    T* d_before;

    __device__ std::size_t stride() const { return static_cast<std::size_t>(gate.stride); }
    __device__ std::size_t offset(int row, int column) const {
        return static_cast<std::size_t>(row) * 2 * stride() + static_cast<std::size_t>(column);
    }
    __device__ Loaded load(int row, int column) const {
        if (column >= in) return {};  // padding
        const T* const linear = before + offset(row, column);
        return {load_floats<1>(linear).v[0] + gate.bias[column],
                load_floats<1>(linear + stride()).v[0] + gate.gate_bias[column]};
    }
    __device__ void apply(int row, int column, const float (&sums)[1], const Loaded& loaded) const {
        const GatedSlopes slopes = gated_slopes(loaded.linear, loaded.gate);
        const float d_h = column < in ? sums[0] : 0.0f;
        T* const linear = d_before + offset(row, column);
        store_floats<1>(linear, Pack<1>{{d_h * slopes.linear}});
        store_floats<1>(linear + stride(), Pack<1>{{d_h * slopes.gate}});
    }
};

// d_weight[out, in] and the gradients of the biases
struct WeightEpilogue : PlainEpilogue {
    static constexpr bool kSumsOfA = true;
    struct Loaded {};

    std::size_t in;
    float* d_weight;
    DenseBiasGradient d_bias;

    __device__ Loaded load(int, int) const { return {}; }
    __device__ void apply(int row, int column, const float (&sums)[1], const Loaded&) const {
        d_weight[static_cast<std::size_t>(row) * in + static_cast<std::size_t>(column)] = sums[0];
    }
    __device__ void store_sum(int row, double sum) const {
        const auto value = static_cast<float>(sum);
        if (d_bias.gate_bias == nullptr || row < d_bias.outputs) {
            d_bias.bias[row] = value;
        } else if (row >= d_bias.stride && row < d_bias.stride + d_bias.outputs) {
            d_bias.gate_bias[row - d_bias.stride] = value;
        }
    }
};

}  // namespace

void dense_backward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals d_product,
                    ConstReals weight, ConstReals before, const float* bias, Reals d_before,
                    const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_backward";
    require_dense(kLauncher, size, {d_product, weight, before, d_before});
    if (size.rows == 0) return;
    with_factors(d_product.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const BackwardEpilogue<T> epilogue{
            {}, f, static_cast<std::size_t>(size.in), before.of<T>(), bias, d_before.of<T>()};
        launch_dense<kind(), Order::outer_major, Order::depth_major>(
            kLauncher, {d_product.of<T>(), size.rows, size.out},
            {weight.of<T>(), size.out, size.in}, {size.rows, size.in}, epilogue, stream);
    });
}

void dense_gated_backward(FloatFactors factors, const DenseSize& size, ConstReals d_product,
                          ConstReals weight, ConstReals before, const DenseGate& gate,
                          Reals d_before, const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_gated_backward";
    require_dense(kLauncher, size, {d_product, weight, before, d_before});
    require_gate(kLauncher, gate, size.in);
    if (size.rows == 0) return;
    with_factors(d_product.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const GatedBackwardEpilogue<T> epilogue{
            {}, gate, size.in, before.of<T>(), d_before.of<T>()};
        launch_dense<kind(), Order::outer_major, Order::depth_major>(
            kLauncher, {d_product.of<T>(), size.rows, size.out},
            {weight.of<T>(), size.out, size.in}, {size.rows, gate.stride}, epilogue, stream);
    });
}

void dense_backward_weight(FloatFactors factors, const DenseSize& size, ConstReals d_product,
                           ConstReals x, float* d_weight, const DenseBiasGradient& d_bias,
                           cudaStream_t stream) {
    constexpr const char* kLauncher = "dense_backward_weight";
    require_dense(kLauncher, size, {d_product, x});
    with_factors(x.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const WeightEpilogue epilogue{{}, static_cast<std::size_t>(size.in), d_weight, d_bias};
        launch_dense<kind(), Order::depth_major, Order::depth_major>(
            kLauncher, {d_product.of<T>(), size.rows, size.out}, {x.of<T>(), size.rows, size.in},
            {size.out, size.in}, epilogue, stream);
    });
}

}  // namespace vae::kernels
