// The loops over rows and pixels that the likelihoods of this folder share. T is float or double.
#pragma once

#include <algorithm>
#include <cstddef>

#include "host/cpu/likelihood_rows.h"
#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {

// One row of a likelihood with one output m a pixel. Pixel is a struct with
//   template <class T> T operator()(T m, T x, T& gradient) const, the loss and d loss/d m.
// Returns the sum of the losses.
template <class T, class Pixel>
VAE_CPU_INLINE T forward_pixels(const Pixel& pixel, const T* product, const T* bias, const T* x,
                                std::size_t pixels) {
    return row_sum<T>(pixels, [=](std::size_t c) {
        T ignored = 0;
        return pixel(product[c] + bias[c], x[c], ignored);
    });
}

// The same; d_product = weight·gradient, and adds its columns to sums.
template <class T, class Pixel>
VAE_CPU_INLINE T backward_pixels(const Pixel& pixel, const T* product, const T* bias, const T* x,
                                 std::size_t pixels, T weight, T* d_product, T* sums) {
    return row_sum<T>(pixels, [=](std::size_t c) {
        T gradient = 0;
        const T loss = pixel(product[c] + bias[c], x[c], gradient);
        d_product[c] = weight * gradient;
        sums[c] += weight * gradient;
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

// recon[r] = finish(r, Σ loss) for each row.
template <class T, class Pixel, class Finish>
void pixels_forward(const Pixel& pixel, const LikelihoodInput<T>& in, T* recon, Finish finish) {
    for_each_chunk(in.rows, in.pixels, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t r = first; r < last; ++r) {
            recon[r] = finish(
                r, forward_row(pixel, in.product + r * in.pixels, in.bias, in.x_of(r), in.pixels));
        }
    });
}

// The same, with d_product and d_bias.
template <class T, class Pixel, class Finish>
void pixels_forward_backward(const Pixel& pixel, const LikelihoodInput<T>& in,
                             const LikelihoodGradient<T>& gradient, T* recon, Finish finish) {
    for_each_row_with_sums(in.rows, in.pixels, gradient, [=](std::size_t r, T* sums) {
        const std::size_t at = r * in.pixels;
        recon[r] = finish(r, backward_row(pixel, in.product + at, in.bias, in.x_of(r), in.pixels,
                                          gradient.weight(r), gradient.d_product + at, sums));
    });
}

}  // namespace vae::cpu
