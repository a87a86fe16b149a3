#include "host/cpu/gated.h"

#include <algorithm>

#include "host/cpu/scalar_math.h"
#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

template <class T>
VAE_CPU_INLINE void forward_rows(const GatedView<T>& layer, std::size_t first, std::size_t last,
                                 T* h) {
    const GatedView<T> v = layer;  // a copy that the stores below cannot alias
    for (std::size_t r = first; r < last; ++r) {
        const T* linear = v.product + r * 2 * v.stride;
        const T* gate = linear + v.stride;
        T* h_row = h + r * v.cols;
#pragma omp simd
        for (std::size_t c = 0; c < v.cols; ++c) {
            h_row[c] = (linear[c] + v.bias[c]) * sigmoid(gate[c] + v.gate_bias[c]);
        }
    }
}

// d_product may be product: each element is read before it is written, which `omp simd` lets the
// compiler rely on.
template <class T>
VAE_CPU_INLINE void backward_rows(const GatedView<T>& layer, const T* d_h, std::size_t first,
                                  std::size_t last, T* d_product, T* sums) {
    const GatedView<T> v = layer;
    T* gate_sums = sums + v.stride;
    std::fill_n(sums, 2 * v.stride, T(0));
    for (std::size_t r = first; r < last; ++r) {
        const T* linear = v.product + r * 2 * v.stride;
        const T* gate = linear + v.stride;
        const T* d_h_row = d_h + r * v.cols;
        T* d_linear = d_product + r * 2 * v.stride;
        T* d_gate = d_linear + v.stride;
#pragma omp simd
        for (std::size_t c = 0; c < v.cols; ++c) {
            const T a = linear[c] + v.bias[c];
            const T g = gate[c] + v.gate_bias[c];
            const T open = sigmoid(g);
            const T d_a = d_h_row[c] * open;
            const T d_g = d_h_row[c] * a * (open * sigmoid(-g));  // 1 − s without cancellation
            d_linear[c] = d_a;
            d_gate[c] = d_g;
            sums[c] += d_a;
            gate_sums[c] += d_g;
        }
        std::fill(d_linear + v.cols, d_gate, T(0));
        std::fill(d_gate + v.cols, d_gate + v.stride, T(0));
    }
}

VAE_CPU_CLONES void forward_chunk(const GatedView<float>& layer, std::size_t first,
                                  std::size_t last, float* h) {
    forward_rows(layer, first, last, h);
}

void forward_chunk(const GatedView<double>& layer, std::size_t first, std::size_t last, double* h) {
    forward_rows(layer, first, last, h);
}

VAE_CPU_CLONES void backward_chunk(const GatedView<float>& layer, const float* d_h,
                                   std::size_t first, std::size_t last, float* d_product,
                                   float* sums) {
    backward_rows(layer, d_h, first, last, d_product, sums);
}

void backward_chunk(const GatedView<double>& layer, const double* d_h, std::size_t first,
                    std::size_t last, double* d_product, double* sums) {
    backward_rows(layer, d_h, first, last, d_product, sums);
}

}  // namespace

template <class T>
void gated_forward(const GatedView<T>& layer, T* h) {
    for_each_chunk(layer.rows, layer.cols, [=](std::size_t, std::size_t first, std::size_t last) {
        forward_chunk(layer, first, last, h);
    });
}

template <class T>
void gated_backward(const GatedView<T>& layer, const T* d_h, T* d_product, T* d_bias,
                    T* d_gate_bias, T* partials) {
    const std::size_t width = 2 * layer.stride;
    for_each_chunk(layer.rows, layer.cols,
                   [=](std::size_t chunk, std::size_t first, std::size_t last) {
                       backward_chunk(layer, d_h, first, last, d_product, partials + chunk * width);
                   });
    const std::size_t chunks = chunk_count(layer.rows);
    add_chunks(partials, chunks, width, layer.cols, d_bias);
    add_chunks(partials + layer.stride, chunks, width, layer.cols, d_gate_bias);
}

template void gated_forward(const GatedView<float>&, float*);
template void gated_forward(const GatedView<double>&, double*);
template void gated_backward(const GatedView<float>&, const float*, float*, float*, float*, float*);
template void gated_backward(const GatedView<double>&, const double*, double*, double*, double*,
                             double*);

}  // namespace vae::cpu
