// A matrix product of a dense layer as a key: what cuBLASLt's choice of an algorithm depends on.
#pragma once

#include <compare>
#include <string>

namespace vae::gpu {

// forward         y[rows, out] = x[rows, in] · w[out, in]ᵀ
// backward_input  d_x[rows, in] = d_y[rows, out] · w[out, in]
// backward_weight d_w[out, in] = d_y[rows, out]ᵀ · x[rows, in]
enum class MatmulKind { forward, backward_input, backward_weight };

// What the factors are, what is computed with, and what the result is. All sums are FP32.
enum class MatmulTypes { fp32, tf32, bf16, bf16_to_fp32 };

struct MatmulProduct {
    MatmulKind kind = MatmulKind::forward;
    MatmulTypes types = MatmulTypes::fp32;
    int rows = 0;
    int in = 0;
    int out = 0;
    int alignment = 16;  // bytes; of each matrix's address, at most 16

    auto operator<=>(const MatmulProduct&) const = default;

    double flops() const { return 2.0 * rows * in * out; }
};

const char* name_of(MatmulKind kind);
const char* name_of(MatmulTypes types);

}  // namespace vae::gpu
