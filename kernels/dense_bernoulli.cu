#include "kernels/dense_bernoulli.h"

#include "kernels/bernoulli.cuh"
#include "kernels/dense_product.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

template <class T>
struct BernoulliEpilogue : PlainEpilogue {
    static constexpr bool kRowSums = true;
    struct Loaded {
        float bias;
        float x;
    };

    LikelihoodRows rows;
    std::size_t pixels;
    const float* bias;
    const float* x;
    T* d_product;
    float* recon;
    Scratch scratch;

    __device__ Loaded load(int row, int column) const {
        const auto c = static_cast<std::size_t>(column);
        return {bias[c], x[rows.example(static_cast<unsigned>(row)) * pixels + c]};
    }
    __device__ float apply(int row, int column, const float (&sums)[1],
                           const Loaded& loaded) const {
        const float l[1] = {sums[0] + loaded.bias};
        float loss = 0;
        float gradient[1];
        BernoulliPixel{}(l, loaded.x, loss, gradient);
        const auto r = static_cast<unsigned>(row);
        store_floats<1>(d_product + r * pixels + static_cast<std::size_t>(column),
                        Pack<1>{{rows.weight(r) * gradient[0]}});
        return loss;
    }
    __device__ void store_row(int row, double sum) const { recon[row] = static_cast<float>(sum); }
};

}  // namespace

void dense_bernoulli(FloatFactors factors, const DenseSize& size, ConstReals h, ConstReals weight,
                     const LikelihoodInput& input, const LikelihoodGradient& gradient, float* recon,
                     const Scratch& scratch, const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_bernoulli";
    require_dense(kLauncher, size, {h, weight, gradient.d_product});
    require_input(input, kLauncher);
    require(input.rows == size.rows && input.pixels == size.out, kLauncher,
            "the input is not of as many rows and pixels");
    if (size.rows == 0) return;
    with_factors(h.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const BernoulliEpilogue<T> epilogue{{},
                                            rows_of(input, gradient),
                                            static_cast<std::size_t>(size.out),
                                            input.bias,
                                            input.x,
                                            gradient.d_product.of<T>(),
                                            recon,
                                            scratch};
        launch_dense<kind(), Order::outer_major, Order::outer_major>(
            kLauncher, {h.of<T>(), size.rows, size.in}, {weight.of<T>(), size.out, size.in},
            {size.rows, size.out}, epilogue, stream);
    });
}

}  // namespace vae::kernels
