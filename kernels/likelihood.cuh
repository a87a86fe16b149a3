// −log p(x | outputs) of independent pixels, its gradient and the bias gradient in one pass, as an
// Op of kernels/tile.cuh. What a likelihood is for one pixel is its Pixel.
#pragma once

#include "kernels/likelihood.h"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {

inline void require_input(const LikelihoodInput& in, const char* launcher) {
    require_shape(in.rows, in.pixels, launcher);
    require(in.samples >= 1 && in.rows % in.samples == 0, launcher,
            "samples must be at least 1 and divide rows");
}

// An element of bf16 would overwrite another's float.
inline void require_gradient(const LikelihoodInput& in, const LikelihoodGradient& gradient,
                             const char* launcher) {
    require(gradient.d_product.storage == Storage::fp32 || gradient.d_product.data != in.product,
            launcher, "a gradient in bf16 cannot take the place of the product");
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

inline LikelihoodRows rows_of(const LikelihoodInput& in, const LikelihoodGradient& gradient) {
    return {static_cast<unsigned>(in.samples), gradient.scale, gradient.row_weight};
}

// What a Pixel may inherit: nothing to read from memory, and recon is the sum of the losses.
struct PlainPixel {
    __device__ void load() {}
    __device__ double recon(unsigned, std::size_t, double sum) const { return sum; }
};

// Pixel is a struct with
//   static constexpr int kOutputs;     // of the decoder for each pixel, 1 or 2
//   void load();                       // once a thread: what is the same for all pixels
//   void operator()(const float (&m)[kOutputs], float x, float& loss,
//                   float (&gradient)[kOutputs]) const;          // gradient[k] = d loss/d m[k]
//   double recon(unsigned row, std::size_t pixels, double sum) const;   // from the row's Σ loss
// With two outputs a row of the product has all first ones, then all second ones. If kBackward,
// d_product = weight of the row · gradient, stored as D, and its column sums before that.
template <class Pixel, bool kBackward, class D>
struct LikelihoodOp {
    static constexpr int kOutputs = Pixel::kOutputs;
    static constexpr bool kRowSums = true;
    static constexpr int kColumnSums = kBackward ? kOutputs : 0;
    template <int V>
    struct Columns {
        Pack<V> bias[kOutputs];
        Pixel pixel;
    };
    template <int V>
    struct Loaded {
        Pack<V> product[kOutputs];
        Pack<V> x;
    };

    // Two outputs of a pixel, and what is made of them, take 128 registers.
    static constexpr unsigned kResidentBlocks = kOutputs > 1 ? 2 : 4;

    Pixel pixel;
    const float* product;
    const float* bias;
    const float* x;
    LikelihoodRows rows;
    std::size_t pixels;
    float* recon;
    D* d_product;
    float* d_bias;

    __device__ std::size_t output(unsigned row, unsigned col, int k) const {
        return (static_cast<std::size_t>(row) * kOutputs + k) * pixels + col;
    }
    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        Columns<V> result = {};
#pragma unroll
        for (int k = 0; k < kOutputs; ++k) result.bias[k] = load_pack<V>(bias + output(0, col, k));
        result.pixel = pixel;
        result.pixel.load();
        return result;
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        Loaded<V> result = {};
#pragma unroll
        for (int k = 0; k < kOutputs; ++k) {
            result.product[k] = load_pack<V>(product + output(row, col, k));
        }
        result.x = load_pack<V>(x + rows.example(row) * pixels + col);
        return result;
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float& row_sum,
                          float (&column_sums)[kThreadSums<V, LikelihoodOp>]) const {
        // Not loaded ahead: it is the same for the whole warp, and would cost registers.
        const float weight = kBackward ? rows.weight(row) : 0.0f;
        Pack<V> d[kOutputs];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            float m[kOutputs];
            float gradient[kOutputs];
            float loss = 0;
#pragma unroll
            for (int k = 0; k < kOutputs; ++k) {
                m[k] = loaded.product[k].v[i] + columns.bias[k].v[i];
            }
            columns.pixel(m, loaded.x.v[i], loss, gradient);
            row_sum += loss;
#pragma unroll
            for (int k = 0; k < kOutputs; ++k) {
                d[k].v[i] = weight * gradient[k];
                if constexpr (kBackward) column_sums[k * V + i] += d[k].v[i];
            }
        }
        if constexpr (kBackward) {
#pragma unroll
            for (int k = 0; k < kOutputs; ++k) {
                store_floats<V>(d_product + output(row, col, k), d[k]);
            }
        }
    }
    __device__ void store_row(unsigned row, double sum) const {
        Pixel loaded = pixel;
        loaded.load();
        recon[row] = static_cast<float>(loaded.recon(row, pixels, sum));
    }
    __device__ void store_column(unsigned col, double sum) const {
        d_bias[col] = static_cast<float>(sum);
    }
};

// Launches it; with rows or pixels 0, zeroes the sums that are left without terms. gradient is of
// no meaning unless kBackward.
template <bool kBackward, class Pixel>
void launch_likelihood(const char* launcher, const Pixel& pixel, const LikelihoodInput& in,
                       const LikelihoodGradient& gradient, float* recon, const Scratch& scratch,
                       cudaStream_t stream) {
    require_input(in, launcher);
    require_gradient(in, gradient, launcher);
    const auto pixels = static_cast<std::size_t>(in.pixels);
    if (in.rows == 0 && in.pixels > 0 && kBackward) {
        const std::size_t bytes = sizeof(float) * pixels * Pixel::kOutputs;
        cuda_check(cudaMemsetAsync(gradient.d_bias, 0, bytes, stream), launcher);
    }
    if (in.pixels == 0 && in.rows > 0) {
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(in.rows);
        cuda_check(cudaMemsetAsync(recon, 0, bytes, stream), launcher);
    }
    if (in.rows == 0 || in.pixels == 0) return;
    const auto launch_as = [&](auto element) {
        using D = decltype(element);
        const LikelihoodOp<Pixel, kBackward, D> op = {.pixel = pixel,
                                                      .product = in.product,
                                                      .bias = in.bias,
                                                      .x = in.x,
                                                      .rows = rows_of(in, gradient),
                                                      .pixels = pixels,
                                                      .recon = recon,
                                                      .d_product = gradient.d_product.of<D>(),
                                                      .d_bias = gradient.d_bias};
        const bool wide = in.pixels % 4 == 0 && aligned_to_four(op.product, op.bias, op.x) &&
                          (!kBackward || aligned_to_four(op.d_product));
        launch_tiles(launcher, op, in.rows, in.pixels, wide, scratch, stream);
    };
    if constexpr (kBackward) {
        with_storage(launcher, {gradient.d_product}, launch_as);
    } else {
        launch_as(float{});
    }
}

}  // namespace vae::kernels
