// The loops over rows and pixels that likelihoods of independent pixels share. T is float or
// double.
//
// A Pixel is a struct with
//   static constexpr std::size_t kOutputs;   // of the decoder for each pixel: 1 or 2
//   template <class T> T operator()(T m, T x, T& d_m) const;                      // if 1
//   template <class T> T operator()(T m, T s, T x, T& d_m, T& d_s) const;         // if 2
// which return the loss and give its derivatives. With two outputs a row of the product has all m
// first, then all s.
#pragma once

#include <algorithm>
#include <cstddef>

#include "host/cpu/likelihood_rows.h"
#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {

// Σ loss of one row.
template <class T, class Pixel>
VAE_CPU_INLINE T forward_pixels(const Pixel& pixel, const T* product, const T* bias, const T* x,
                                std::size_t pixels) {
    return row_sum<T>(pixels, [=](std::size_t c) {
        T d_m = 0;
        if constexpr (Pixel::kOutputs == 1) {
            return pixel(product[c] + bias[c], x[c], d_m);
        } else {
            T d_s = 0;
            const std::size_t s = pixels + c;
            return pixel(product[c] + bias[c], product[s] + bias[s], x[c], d_m, d_s);
        }
    });
}

// The same; d_product = weight·derivatives, and adds its columns to sums.
template <class T, class Pixel>
VAE_CPU_INLINE T backward_pixels(const Pixel& pixel, const T* product, const T* bias, const T* x,
                                 std::size_t pixels, T weight, T* d_product, T* sums) {
    return row_sum<T>(pixels, [=](std::size_t c) {
        T loss = 0;
        T d_m = 0;
        if constexpr (Pixel::kOutputs == 1) {
            loss = pixel(product[c] + bias[c], x[c], d_m);
        } else {
            T d_s = 0;
            const std::size_t s = pixels + c;
            loss = pixel(product[c] + bias[c], product[s] + bias[s], x[c], d_m, d_s);
            d_product[s] = weight * d_s;
            sums[s] += weight * d_s;
        }
        d_product[c] = weight * d_m;
        sums[c] += weight * d_m;
        return loss;
    });
}

template <class Pixel>
VAE_CPU_CLONES float forward_row(const Pixel& pixel, const float* product, const float* bias,
                                 const float* x, std::size_t pixels) {
    return forward_pixels(pixel, product, bias, x, pixels);
}

template <class Pixel>
double forward_row(const Pixel& pixel, const double* product, const double* bias, const double* x,
                   std::size_t pixels) {
    return forward_pixels(pixel, product, bias, x, pixels);
}

template <class Pixel>
VAE_CPU_CLONES float backward_row(const Pixel& pixel, const float* product, const float* bias,
                                  const float* x, std::size_t pixels, float weight,
                                  float* d_product, float* sums) {
    return backward_pixels(pixel, product, bias, x, pixels, weight, d_product, sums);
}

template <class Pixel>
double backward_row(const Pixel& pixel, const double* product, const double* bias, const double* x,
                    std::size_t pixels, double weight, double* d_product, double* sums) {
    return backward_pixels(pixel, product, bias, x, pixels, weight, d_product, sums);
}

// Calls row(r, sums) for each row, which adds the row's gradient to sums[outputs] of its chunk;
// then adds the chunks to d_bias.
template <class T, class Row>
void for_each_row_with_sums(std::size_t rows, std::size_t outputs,
                            const LikelihoodGradient<T>& gradient, Row row) {
    for_each_chunk(rows, outputs, [=](std::size_t chunk, std::size_t first, std::size_t last) {
        T* sums = gradient.partials + chunk * outputs;
        std::fill_n(sums, outputs, T(0));
        for (std::size_t r = first; r < last; ++r) row(r, sums);
    });
    add_chunks(gradient.partials, chunk_count(rows), outputs, outputs, gradient.d_bias);
}

// Calls row(r) for each row, over all threads.
template <class Row>
void for_each_row(std::size_t rows, std::size_t outputs, Row row) {
    for_each_chunk(rows, outputs, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) row(r);
    });
}

// The losses are all there is to recon.
struct SumIsRecon {
    template <class T>
    T operator()(std::size_t, T sum) const {
        return sum;
    }
};

// recon[r] = finish(r, Σ loss) for each row.
template <class T, class Pixel, class Finish = SumIsRecon>
void pixels_forward(const Pixel& pixel, const LikelihoodInput<T>& in, T* recon,
                    Finish finish = {}) {
    const std::size_t outputs = Pixel::kOutputs * in.pixels;
    for_each_row(in.rows, outputs, [=](std::size_t r) {
        recon[r] =
            finish(r, forward_row(pixel, in.product + r * outputs, in.bias, in.x_of(r), in.pixels));
    });
}

// The same, with d_product and d_bias.
template <class T, class Pixel, class Finish = SumIsRecon>
void pixels_forward_backward(const Pixel& pixel, const LikelihoodInput<T>& in,
                             const LikelihoodGradient<T>& gradient, T* recon, Finish finish = {}) {
    const std::size_t outputs = Pixel::kOutputs * in.pixels;
    for_each_row_with_sums(in.rows, outputs, gradient, [=](std::size_t r, T* sums) {
        const std::size_t at = r * outputs;
        recon[r] = finish(r, backward_row(pixel, in.product + at, in.bias, in.x_of(r), in.pixels,
                                          gradient.weight(r), gradient.d_product + at, sums));
    });
}

// out[rows, cols] = f(product + bias) of the first cols of `stride` columns. Function is a struct
// with template <class T> T operator()(T) const.
template <class T, class Function>
VAE_CPU_INLINE void map_columns(const Function& f, const T* product, const T* bias,
                                std::size_t cols, T* out) {
#pragma omp simd
    for (std::size_t c = 0; c < cols; ++c) out[c] = f(product[c] + bias[c]);
}

template <class Function>
VAE_CPU_CLONES void map_row(const Function& f, const float* product, const float* bias,
                            std::size_t cols, float* out) {
    map_columns(f, product, bias, cols, out);
}

template <class Function>
void map_row(const Function& f, const double* product, const double* bias, std::size_t cols,
             double* out) {
    map_columns(f, product, bias, cols, out);
}

template <class T, class Function>
void map_outputs(const Function& f, const T* product, const T* bias, std::size_t rows,
                 std::size_t stride, std::size_t cols, T* out) {
    for_each_row(rows, cols, [=](std::size_t r) {
        map_row(f, product + r * stride, bias, cols, out + r * cols);
    });
}

}  // namespace vae::cpu
