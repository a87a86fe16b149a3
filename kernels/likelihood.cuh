// −log p(x | m) of independent pixels, its gradient and the bias gradient in one pass, as an Op of
// kernels/tile.cuh. What a likelihood is for one pixel is its Pixel.
#pragma once

#include "kernels/tile.cuh"

namespace vae::kernels {

// Pixel is a struct with
//   void operator()(float m, float x, float& loss, float& gradient) const, gradient = d loss/d m.
// recon[r] = Σ_c loss + cols·constant; if kBackward, d_product = scale·gradient and its column
// sums.
template <class Pixel, bool kBackward>
struct LikelihoodOp {
    static constexpr bool kRowSums = true;
    static constexpr bool kColumnSums = kBackward;
    template <int V>
    using Columns = Pack<V>;
    template <int V>
    struct Loaded {
        Pack<V> product;
        Pack<V> x;
    };

    Pixel pixel;
    const float* product;
    const float* bias;
    const float* x;
    std::size_t cols;
    double row_constant;
    float scale;
    float* recon;
    float* d_product;
    float* d_bias;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return load_pack<V>(bias + col);
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        const std::size_t offset = row * cols + col;
        return {load_pack<V>(product + offset), load_pack<V>(x + offset)};
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& biases,
                          const Loaded<V>& loaded, float& row_sum, float (&column_sums)[V]) const {
        Pack<V> d;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            float loss = 0;
            float gradient = 0;
            pixel(loaded.product.v[i] + biases.v[i], loaded.x.v[i], loss, gradient);
            row_sum += loss;
            d.v[i] = scale * gradient;
            if constexpr (kBackward) column_sums[i] += d.v[i];
        }
        if constexpr (kBackward) store_pack<V>(d_product + row * cols + col, d);
    }
    __device__ void store_row(unsigned row, double sum) const {
        recon[row] = static_cast<float>(sum + row_constant);
    }
    __device__ void store_column(unsigned col, double sum) const {
        d_bias[col] = static_cast<float>(sum);
    }
};

// Of the arrays that both directions have; the rest is zero.
template <class Pixel, bool kBackward>
LikelihoodOp<Pixel, kBackward> likelihood_op(const Pixel& pixel, const float* product,
                                             const float* bias, const float* x, int cols,
                                             float* recon) {
    LikelihoodOp<Pixel, kBackward> op = {};
    op.pixel = pixel;
    op.product = product;
    op.bias = bias;
    op.x = x;
    op.cols = static_cast<std::size_t>(cols);
    op.recon = recon;
    return op;
}

// Launches op over its arrays; with rows or cols 0, zeroes the sums that are left without terms.
template <class Pixel, bool kBackward>
void launch_likelihood(const char* launcher, const LikelihoodOp<Pixel, kBackward>& op, int rows,
                       int cols, const Scratch& scratch, cudaStream_t stream) {
    require_shape(rows, cols, launcher);
    if (rows == 0 && cols > 0 && kBackward) {
        cuda_check(cudaMemsetAsync(op.d_bias, 0, sizeof(float) * op.cols, stream), launcher);
    }
    if (cols == 0 && rows > 0) {
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(rows);
        cuda_check(cudaMemsetAsync(op.recon, 0, bytes, stream), launcher);
    }
    if (rows == 0 || cols == 0) return;
    const bool wide = cols % 4 == 0 && aligned_to_16(op.product, op.bias, op.x) &&
                      (!kBackward || aligned_to_16(op.d_product));
    launch_tiles(launcher, op, rows, cols, wide, scratch, stream);
}

}  // namespace vae::kernels
