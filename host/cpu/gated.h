// A gated layer behind the joint matrix product of its two linear maps, and its backward (Dauphin
// et al. 2017, section 2; with dense maps Norouzi et al. 2020). T is float or double.
#pragma once

#include <cstddef>

namespace vae::cpu {

// The joint product of both maps, without bias: product[rows, 2·stride], the linear part in columns
// [0, cols), the gate in [stride, stride + cols); other columns are padding.
template <class T>
struct GatedView {
    const T* product = nullptr;
    const T* bias = nullptr;       // [cols]
    const T* gate_bias = nullptr;  // [cols]
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::size_t stride = 0;
};

// With a = linear part + bias, g = gate + gate_bias, s = sigmoid(g):

// Computes  h = a·s
// Shapes    h[rows, cols]
template <class T>
void gated_forward(const GatedView<T>& layer, T* h);

// Computes  d_product: d_a = d_h·s in the linear part, d_g = d_h·a·s·(1 − s) in the gate's, zero in
//           the padding; d_bias, d_gate_bias [cols]: their column sums
// Shapes    d_h[rows, cols]; d_product[rows, 2·stride] laid out as product and may be it;
//           partials[chunk_count(rows), 2·stride] is overwritten
template <class T>
void gated_backward(const GatedView<T>& layer, const T* d_h, T* d_product, T* d_bias,
                    T* d_gate_bias, T* partials);

}  // namespace vae::cpu
