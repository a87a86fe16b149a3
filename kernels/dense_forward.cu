#include "kernels/activation.cuh"
#include "kernels/dense.h"
#include "kernels/dense_product.cuh"
#include "kernels/device_code.h"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// product and h = f(product + bias) [rows, out]
template <class T>
struct ForwardEpilogue {
    static constexpr bool kSumsOfA = false;
    using Loaded = float;  // the bias

    Activation f;
    std::size_t out;
    const float* bias;
    T* product;
    T* h;

    __device__ Loaded load(int, int column) const { return bias[column]; }
    __device__ void apply(int row, int column, float sum, Loaded bias_here) const {
        const std::size_t offset =
            static_cast<std::size_t>(row) * out + static_cast<std::size_t>(column);
        store_floats<1>(product + offset, Pack<1>{{sum}});
        store_floats<1>(h + offset, Pack<1>{{activation_value(f, sum + bias_here)}});
    }
};

}  // namespace

bool has_dense_kernels() {
    constexpr int kFirst = 80;
    return compiled_architecture() >= kFirst;
}

void dense_forward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals x,
                   ConstReals weight, const float* bias, Reals product, Reals h,
                   cudaStream_t stream) {
    constexpr const char* kLauncher = "dense_forward";
    require_dense(kLauncher, size, {x, weight, product, h});
    if (size.rows == 0) return;
    with_factors(x.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const ForwardEpilogue<T> epilogue{f, static_cast<std::size_t>(size.out), bias,
                                          product.of<T>(), h.of<T>()};
        launch_dense<kind(), Order::outer_major, Order::outer_major>(
            kLauncher, {x.of<T>(), size.rows, size.in}, {weight.of<T>(), size.out, size.in},
            epilogue, stream);
    });
}

}  // namespace vae::kernels
