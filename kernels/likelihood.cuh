// −log p(x | m) of independent pixels, its gradient and the bias gradient in one pass, as an Op of
// kernels/tile.cuh. What a likelihood is for one pixel is its Pixel.
#pragma once

#include "kernels/likelihood.h"
#include "kernels/tile.cuh"

namespace vae::kernels {

inline void require_input(const LikelihoodInput& in, const char* launcher) {
    require_shape(in.rows, in.pixels, launcher);
    require(in.samples >= 1 && in.rows % in.samples == 0, launcher,
            "samples must be at least 1 and divide rows");
}

// Where row r's example and weight are.
struct LikelihoodRows {
    unsigned samples;
    float scale;
    const float* row_weight;

    // One sample is the usual case: no division.
    __device__ unsigned example(unsigned row) const { return samples == 1 ? row : row / samples; }
    __device__ float weight(unsigned row) const {
        return row_weight == nullptr ? scale : scale * row_weight[row];
    }
};

// Pixel is a struct with
//   void operator()(float m, float x, float& loss, float& gradient) const, gradient = d loss/d m.
// recon[r] = Σ_c loss + cols·constant; if kBackward, d_product = weight of the row · gradient and
// its column sums.
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
        float weight;
    };

    Pixel pixel;
    const float* product;
    const float* bias;
    const float* x;
    LikelihoodRows rows;
    std::size_t cols;
    double row_constant;
    float* recon;
    float* d_product;
    float* d_bias;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return load_pack<V>(bias + col);
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        return {load_pack<V>(product + row * cols + col),
                load_pack<V>(x + rows.example(row) * cols + col),
                kBackward ? rows.weight(row) : 0.0f};
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
            d.v[i] = loaded.weight * gradient;
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

// gradient: of no meaning unless kBackward.
template <bool kBackward, class Pixel>
LikelihoodOp<Pixel, kBackward> likelihood_op(const Pixel& pixel, const LikelihoodInput& in,
                                             const LikelihoodGradient& gradient, float* recon) {
    LikelihoodOp<Pixel, kBackward> op = {};
    op.pixel = pixel;
    op.product = in.product;
    op.bias = in.bias;
    op.x = in.x;
    op.rows = {static_cast<unsigned>(in.samples), gradient.scale, gradient.row_weight};
    op.cols = static_cast<std::size_t>(in.pixels);
    op.recon = recon;
    op.d_product = gradient.d_product;
    op.d_bias = gradient.d_bias;
    return op;
}

// Launches op over its arrays; with rows or pixels 0, zeroes the sums that are left without terms.
template <class Pixel, bool kBackward>
void launch_likelihood(const char* launcher, const LikelihoodOp<Pixel, kBackward>& op,
                       const LikelihoodInput& in, const Scratch& scratch, cudaStream_t stream) {
    require_input(in, launcher);
    if (in.rows == 0 && in.pixels > 0 && kBackward) {
        cuda_check(cudaMemsetAsync(op.d_bias, 0, sizeof(float) * op.cols, stream), launcher);
    }
    if (in.pixels == 0 && in.rows > 0) {
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(in.rows);
        cuda_check(cudaMemsetAsync(op.recon, 0, bytes, stream), launcher);
    }
    if (in.rows == 0 || in.pixels == 0) return;
    const bool wide = in.pixels % 4 == 0 && aligned_to_16(op.product, op.bias, op.x) &&
                      (!kBackward || aligned_to_16(op.d_product));
    launch_tiles(launcher, op, in.rows, in.pixels, wide, scratch, stream);
}

}  // namespace vae::kernels
