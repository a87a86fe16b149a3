// The products of a hidden layer on tensor cores, each with what follows it in the same kernel: for
// small networks, whose steps are bound by the number of kernels that wait for each other.
//
// Numerics of all. Sums are float. Of bf16 the factors' products are exact. Of floats they are
// rounded to TF32 (to nearest, 2^-11 of the value) or, as FloatFactors says, taken in two parts of
// TF32 each, of whose four products the least is left out: exact to 3·2^-22 of each product. An
// instruction of a tensor core adds 8 (TF32) or 16 (bf16) products to a sum, and may cut each of
// them and the sum at the last place of the largest, by at most 2^-23 of that; with two parts only
// within 16 terms, whose sums are added rounded. The terms are in two halves, of every 32 (bf16:
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

// Where a product runs, and whether its kernel may be there before the one ahead of it in the
// stream is done (LaunchShape::starts_early). It reads its first weights then: they must not be
// what that kernel writes, and nothing else may still write them once that kernel runs.
struct DenseStream {
    cudaStream_t stream = nullptr;
    bool starts_early = false;

    DenseStream(cudaStream_t on, bool early = false) : stream(on), starts_early(early) {}
};

// Whether the kernels below are compiled for the current device: for compute capability 8.0 or
// newer. Where they are not, launching them fails. Throws CudaError.
bool has_dense_kernels();

// Computes  product = x·Wᵀ,  h = f(product + bias)
// Shapes    x[rows, in], weight[out, in], product and h [rows, out], all stored alike; bias[out]
// Writes    overwrites product and h, which may not overlap anything
// Numerics  above; h of the float product before that is rounded to bf16. f: bias_activation.h
// Cost      2·rows·in·out flops. A tile of the result is 32×32, so x is read out/32 times and the
//           weight rows/32 times, from the L2 cache. Bound by the instructions of few blocks at the
//           sizes it is made for, by the L2 cache where rows and out are large. A factor whose rows
//           are no multiple of 16 bytes, or that is not aligned so, costs several times the
//           instructions; one of bf16 with an odd number of columns waits for each stage.
// Launch    a block of 256 threads a tile, 36 KiB of shared memory (dense_backward 38,
//           dense_backward_weight 40)
void dense_forward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals x,
                   ConstReals weight, const float* bias, Reals product, Reals h,
                   const DenseStream& stream);

// From a layer's gradient to that of the product of the hidden layer before it, whose output is the
// layer's x.
// Computes  d_before = (d_product·W) · f'(before + bias)
// Shapes    d_product[rows, out], weight[out, in], before and d_before [rows, in], stored alike;
//           bias[in], or null for none (see bias_activation_backward)
// Writes    overwrites d_before, which may be `before`; nothing else may overlap
// Numerics  above; f': bias_activation.h
// Cost      as above, and `before` is read once
// Launch    as above
void dense_backward(Activation f, FloatFactors factors, const DenseSize& size, ConstReals d_product,
                    ConstReals weight, ConstReals before, const float* bias, Reals d_before,
                    const DenseStream& stream);

// A gated layer (kernels/gated.h): the linear part is in rows [0, out) of the weight and columns
// [0, out) of the product, the gate in [stride, stride + out); the rest of 2·stride is padding.
struct DenseGate {
    const float* bias = nullptr;       // [out]
    const float* gate_bias = nullptr;  // [out]
    int stride = 0;
};

// Computes  product = x·Wᵀ,  h = a·sigmoid g of the linear part and the gate, with their biases
// Shapes    x[rows, in], weight[2·stride, in], product[rows, 2·stride], h[rows, out], all stored
//           alike; stride >= out
// Writes    overwrites h, and product but for its padding; they may not overlap anything
// Numerics  above; h of the float product, with at most 10 roundings more
// Cost      4·rows·in·out flops; as dense_forward with tiles of 32×16 of h
// Launch    a block of 256 threads a tile, 36 KiB of shared memory
void dense_gated_forward(FloatFactors factors, const DenseSize& size, ConstReals x,
                         ConstReals weight, const DenseGate& gate, Reals product, Reals h,
                         const DenseStream& stream);

// From a layer's gradient to that of the product of the gated layer before it, of which `gate` is.
// Computes  d_h = d_product·W;  d_before of it as gated_backward does
// Shapes    d_product[rows, out], weight[out, in], before and d_before [rows, 2·stride], all stored
//           alike; stride >= in
// Writes    overwrites d_before, its padding with zero; it may be `before`, nothing else overlaps
// Numerics  above; at most 10 roundings more of the linear part, 20 of the gate's
// Cost      2·rows·in·out flops, and `before` is read once
// Launch    as dense_backward
void dense_gated_backward(FloatFactors factors, const DenseSize& size, ConstReals d_product,
                          ConstReals weight, ConstReals before, const DenseGate& gate,
                          Reals d_before, const DenseStream& stream);

// Where the gradients of a layer's biases go: of row o of the weight to bias[o], of a gated layer's
// row stride + o to gate_bias[o]; its padding's go nowhere.
struct DenseBiasGradient {
    float* bias = nullptr;       // [outputs]
    float* gate_bias = nullptr;  // [outputs]; null: not gated
    int outputs = 0;             // of a gated layer
    int stride = 0;              // likewise
};

// Computes  d_weight = d_productᵀ·x,  and the sums of d_product over rows
// Shapes    d_product[rows, out] and x[rows, in] stored alike; d_weight[out, in]; a gated layer's
//           out is 2·stride
// Writes    overwrites d_weight and the biases' gradients, which are zero if rows is 0; nothing may
//           overlap
// Numerics  above; sums of the biases: float over an eighth of the rows, those in double
// Cost      2·rows·in·out flops
// Launch    as dense_forward
void dense_backward_weight(FloatFactors factors, const DenseSize& size, ConstReals d_product,
                           ConstReals x, float* d_weight, const DenseBiasGradient& d_bias,
                           cudaStream_t stream);

}  // namespace vae::kernels
