#include "kernels/activation.cuh"
#include "kernels/dense.h"
#include "kernels/dense_product.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// d_before = sum · f'(before + bias) [rows, in]
template <class T>
struct BackwardEpilogue {
    static constexpr bool kSumsOfA = false;
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
    __device__ void apply(int row, int column, float sum, Loaded pre) const {
        store_floats<1>(d_before + offset(row, column), Pack<1>{{sum * activation_slope(f, pre)}});
    }
};

// d_weight[out, in] and d_bias[out]
struct WeightEpilogue {
    static constexpr bool kSumsOfA = true;
    struct Loaded {};

    std::size_t in;
    float* d_weight;
    float* d_bias;

    __device__ Loaded load(int, int) const { return {}; }
    __device__ void apply(int row, int column, float sum, Loaded) const {
        d_weight[static_cast<std::size_t>(row) * in + static_cast<std::size_t>(column)] = sum;
    }
    __device__ void store_sum(int row, double sum) const { d_bias[row] = static_cast<float>(sum); }
};

}  // namespace

void dense_backward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals d_product,
                    ConstReals weight, ConstReals before, const float* bias, Reals d_before,
                    cudaStream_t stream) {
    constexpr const char* kLauncher = "dense_backward";
    require_dense(kLauncher, size, {d_product, weight, before, d_before});
    if (size.rows == 0) return;
    with_factors(d_product.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const BackwardEpilogue<T> epilogue{f, static_cast<std::size_t>(size.in), before.of<T>(),
                                           bias, d_before.of<T>()};
        launch_dense<kind(), Order::outer_major, Order::depth_major>(
            kLauncher, {d_product.of<T>(), size.rows, size.out},
            {weight.of<T>(), size.out, size.in}, epilogue, stream);
    });
}

void dense_backward_weight(FloatFactors factors, const DenseSize& size, ConstReals d_product,
                           ConstReals x, float* d_weight, float* d_bias, cudaStream_t stream) {
    constexpr const char* kLauncher = "dense_backward_weight";
    require_dense(kLauncher, size, {d_product, x});
    with_factors(x.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const WeightEpilogue epilogue{static_cast<std::size_t>(size.in), d_weight, d_bias};
        launch_dense<kind(), Order::depth_major, Order::depth_major>(
            kLauncher, {d_product.of<T>(), size.rows, size.out}, {x.of<T>(), size.rows, size.in},
            epilogue, stream);
    });
}

}  // namespace vae::kernels
