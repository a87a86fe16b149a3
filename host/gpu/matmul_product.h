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

// Whether the factors are stored as floats.
constexpr bool is_of_floats(MatmulTypes types) {
    return types == MatmulTypes::fp32 || types == MatmulTypes::tf32;
}

// What becomes of the result before it is stored, and what is computed beside it: by the product's
// own kernel, or by one more that cuBLASLt runs behind it. Which it is depends on types, shapes and
// GPU.
//
// bias_relu: of forward, y = max(x·wᵀ + bias, 0), and a bit for each element above 0; of those
// whose x·wᵀ + bias is exactly 0 or NaN it may be set or not, and of a NaN y may be 0.
//
// relu_backward: of backward_input, 0 in d_x where the bit of x is not set.
//
// bias_gradient: of backward_weight, the sums of d_y over rows.
enum class MatmulEpilogue { none, bias_relu, relu_backward, bias_gradient };

constexpr bool has_bias(MatmulEpilogue epilogue) {
    return epilogue == MatmulEpilogue::bias_relu || epilogue == MatmulEpilogue::bias_gradient;
}
constexpr bool has_bits(MatmulEpilogue epilogue) {
    return epilogue == MatmulEpilogue::bias_relu || epilogue == MatmulEpilogue::relu_backward;
}

// Bytes of a row of the bits of a ReLU; they start at an address of 16 bytes' alignment.
constexpr int relu_bits_pitch(int width) {
    return (width + 127) / 128 * 16;
}

struct MatmulProduct {
    MatmulKind kind = MatmulKind::forward;
    MatmulTypes types = MatmulTypes::fp32;
    MatmulEpilogue epilogue = MatmulEpilogue::none;
    int rows = 0;
    int in = 0;
    int out = 0;
    int alignment = 16;  // bytes; of the address of all that is read or written, at most 16

    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy takes the comparison with 0 for a pointer's
    auto operator<=>(const MatmulProduct&) const = default;

    double flops() const { return 2.0 * rows * in * out; }
    // Of each sum of the result.
    int terms() const {
        switch (kind) {
            case MatmulKind::forward:
                return in;
            case MatmulKind::backward_input:
                return out;
            case MatmulKind::backward_weight:
                break;
        }
        return rows;
    }
};

const char* name_of(MatmulKind kind);
const char* name_of(MatmulTypes types);
const char* name_of(MatmulEpilogue epilogue);

}  // namespace vae::gpu
