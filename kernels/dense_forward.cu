#include "kernels/activation.cuh"
#include "kernels/dense.h"
#include "kernels/dense_product.cuh"
#include "kernels/device_code.h"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// product and h = f(product + bias) [rows, out]
template <class T>
struct ForwardEpilogue : PlainEpilogue {
    using Loaded = float;  // the bias

    Activation f;
    std::size_t out;
    const float* bias;
    T* product;
    T* h;

    __device__ Loaded load(int, int column) const { return bias[column]; }
    __device__ void apply(int row, int column, const float (&sums)[1],
                          const Loaded& bias_here) const {
        const std::size_t offset =
            static_cast<std::size_t>(row) * out + static_cast<std::size_t>(column);
        store_floats<1>(product + offset, Pack<1>{{sums[0]}});
        store_floats<1>(h + offset, Pack<1>{{activation_value(f, sums[0] + bias_here)}});
    }
};

// product [rows, 2·stride] and h = a·sigmoid g [rows, out]
template <class T>
struct GatedForwardEpilogue : PlainEpilogue {
    static constexpr int kSums = 2;
    struct Loaded {
        float bias;
        float gate_bias;
    };

    DenseGate gate;
    std::size_t out;
    T* product;
    T* h;

    __device__ Loaded load(int, int column) const {
        return {gate.bias[column], gate.gate_bias[column]};
    }
    __device__ void apply(int row, int column, const float (&sums)[2], const Loaded& loaded) const {
        const auto r = static_cast<std::size_t>(row);
        const auto c = static_cast<std::size_t>(column);
        const auto stride = static_cast<std::size_t>(gate.stride);
        T* const linear = product + r * 2 * stride + c;
        store_floats<1>(linear, Pack<1>{{sums[0]}});
        store_floats<1>(linear + stride, Pack<1>{{sums[1]}});
        store_floats<1>(h + r * out + c,
                        Pack<1>{{(sums[0] + loaded.bias) * sigmoid(sums[1] + loaded.gate_bias)}});
    }
};

}  // namespace

bool has_dense_kernels() {
    constexpr int kFirst = 80;
    return compiled_architecture() >= kFirst;
}

void dense_forward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals x,
                   ConstReals weight, const float* bias, Reals product, Reals h,
                   const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_forward";
    require_dense(kLauncher, size, {x, weight, product, h});
    if (size.rows == 0) return;
    with_factors(x.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const ForwardEpilogue<T> epilogue{
            {}, f, static_cast<std::size_t>(size.out), bias, product.of<T>(), h.of<T>()};
        launch_dense<kind(), Order::outer_major, Order::outer_major>(
            kLauncher, {x.of<T>(), size.rows, size.in}, {weight.of<T>(), size.out, size.in},
            {size.rows, size.out}, epilogue, stream);
    });
}

void dense_gated_forward(FloatFactors factors, const DenseSize& size, ConstReals x,
                         ConstReals weight, const DenseGate& gate, Reals product, Reals h,
                         const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_gated_forward";
    require_dense(kLauncher, size, {x, weight, product, h});
    require_gate(kLauncher, gate, size.out);
    if (size.rows == 0) return;
    with_factors(x.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const GatedForwardEpilogue<T> epilogue{
            {}, gate, static_cast<std::size_t>(size.out), product.of<T>(), h.of<T>()};
        FactorMatrix<T> of_weight{weight.of<T>(), size.out, size.in};
        of_weight.stride = gate.stride;
        launch_dense<kind(), Order::outer_major, Order::outer_major>(
            kLauncher, {x.of<T>(), size.rows, size.in}, of_weight, {size.rows, size.out}, epilogue,
            stream);
    });
}

}  // namespace vae::kernels
