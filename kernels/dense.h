// The products of a hidden layer on tensor cores, each with what follows it in the same kernel: for
// small networks, whose steps are bound by the number of kernels that wait for each other.
//
// Numerics of all three. Sums are float. Of bf16 the factors' products are exact. Of floats they
// are rounded to TF32 (to nearest, 2^-11 of the value) or, as FloatFactors says, taken in two parts
// of TF32 each, of whose four products the least is left out: exact to 3·2^-22 of each product. An
// instruction of a tensor core adds 8 (TF32) or 16 (bf16) products to a sum, and may cut each of
// them and the sum at the last place of the largest, by at most 2^-23 of that; with two parts only
// within 32 terms, whose sums are added rounded. The terms are in two halves, of every 32 (bf16:
// 64) neighbours the first 16 (32) and the others, whose sums are added last. The order is fixed:
// same arrays, same bits. Of a NaN or infinity among its factors a sum is NaN or infinite.
#pragma once

#include <cuda_runtime.h>

#include "kernels/activation.h"
#include "kernels/reals.h"

namespace vae::kernels {

// How floats are factors. Of bf16 it says nothing.
enum class FloatFactors { tf32, two_tf32 };

// Of a layer x[rows, in] → x·Wᵀ [rows, out]; any rows >= 0, in, out >= 1.
struct DenseSize {
    int rows = 0;
    int in = 0;
    int out = 0;
};

// Whether the kernels below are compiled for the current device: for compute capability 8.0 or
// newer. Where they are not, launching them fails. Throws CudaError.
bool has_dense_kernels();

// Computes  product = x·Wᵀ,  h = f(product + bias)
// Shapes    x[rows, in], weight[out, in], product and h [rows, out], all stored alike; bias[out]
// Writes    overwrites product and h, which may not overlap anything
// Numerics  above; h of the float product before that is rounded to bf16. f: bias_activation.h
// Cost      2·rows·in·out flops. A tile of 32×32 of the result reads 64 rows of factors, so the
//           factors are read about (rows + out)/64 times; bound by the L2 cache where both are
//           large
// Launch    a block of 256 threads a tile, 40 KiB of shared memory
void dense_forward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals x,
                   ConstReals weight, const float* bias, Reals product, Reals h,
                   cudaStream_t stream);

// From a layer's gradient to that of the product of the hidden layer before it, whose output is the
// layer's x.
// Computes  d_before = (d_product·W) · f'(before + bias)
// Shapes    d_product[rows, out], weight[out, in], before and d_before [rows, in], all stored
// alike;
//           bias[in], or null for none (see bias_activation_backward)
// Writes    overwrites d_before, which may be `before`; nothing else may overlap
// Numerics  above; f': bias_activation.h
// Cost      as above, and `before` is read once
// Launch    as above
void dense_backward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals d_product,
                    ConstReals weight, ConstReals before, const float* bias, Reals d_before,
                    cudaStream_t stream);

// Computes  d_weight = d_productᵀ·x,  d_bias[o] = Σ_r d_product[r, o]
// Shapes    d_product[rows, out] and x[rows, in] stored alike; d_weight[out, in], d_bias[out]
// Writes    overwrites d_weight and d_bias, which are zero if rows is 0; nothing may overlap
// Numerics  above; sums of the bias: float over an eighth of the rows, those in double
// Cost      as above
// Launch    as above
void dense_backward_weight(FloatFactors factors, const DenseSize& size, ConstReals d_product,
                           ConstReals x, float* d_weight, float* d_bias, cudaStream_t stream);

}  // namespace vae::kernels
