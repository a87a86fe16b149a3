// The matrix products of a dense layer, in cuBLASLt. All matrices are row-major and dense, on the
// device; sizes are at least 1.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "host/config.h"
#include "host/gpu/device_array.h"
#include "host/gpu/matmul_plans.h"

namespace vae::gpu {

// Where products are computed: a stream, and a workspace that no other stream uses at the same
// time. One for each stream whose work may overlap. The stream outlives it.
struct MatmulLane {
    explicit MatmulLane(const Stream& on)
        : stream(on), workspace(kMatmulWorkspaceBytes, "the cuBLASLt workspace") {}

    const Stream& stream;
    // Scratch: that products write it changes nothing that anybody sees.
    mutable DeviceArray<unsigned char> workspace;
};

// Beside a product's matrices.
struct MatmulExtra {
    bool accumulate = false;     // to what the result holds
    const void* bias = nullptr;  // of an epilogue: read, or written with a gradient
    const void* bits = nullptr;  // of a ReLU: written forward, read backward
};

// d = a·b of a plan, column-major, as cuBLASLt names its factors.
void run_plan(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan, const void* a,
              const void* b, void* d, const MatmulExtra& extra);

// In and Out are float or __nv_bfloat16; a result is never wider than FP32, and bfloat16 only of
// bfloat16. Of floats the product is in FP32 or TF32, as the precision says; of bfloat16 it is
// exact before the sum. Sums are FP32. Bits: see MatmulPlans. Throws RunError when cuBLASLt fails.
class Matmul {
  public:
    // fp32: products of floats compute in FP32; tf32 and bf16: in TF32.
    explicit Matmul(Precision precision)
        : types_of_floats_(precision == Precision::fp32 ? MatmulTypes::fp32 : MatmulTypes::tf32),
          plans_(std::make_unique<MatmulPlans>()) {}

    // y[rows, out] = x[rows, in] · w[out, in]ᵀ
    template <class In, class Out>
    void forward(const MatmulLane& lane, const In* x, const In* w, int rows, int in, int out,
                 Out* y) const;
    // d_x[rows, in] = d_y[rows, out] · w[out, in]
    template <class In, class Out>
    void backward_input(const MatmulLane& lane, const In* d_y, const In* w, int rows, int in,
                        int out, Out* d_x) const;
    // d_w[out, in] = d_y[rows, out]ᵀ · x[rows, in], added to what d_w holds if so asked
    template <class In, class Out>
    void backward_weight(const MatmulLane& lane, const In* d_y, const In* x, int rows, int in,
                         int out, Out* d_w, bool accumulate = false) const;

    // The same with an epilogue, of which cuBLASLt may have none for some types on some GPUs: ask
    // has(). Bits of a ReLU are [rows, relu_bits_pitch(width)].
    // y = max(x·wᵀ + bias[out], 0), and the bits of y
    template <class In, class Out>
    void forward_relu(const MatmulLane& lane, const In* x, const In* w, const Out* bias, int rows,
                      int in, int out, Out* y, std::uint8_t* bits) const;
    // d_x, but 0 where the bits of x are not set, and d_bias[in], the sums of d_x over rows
    template <class In, class Out>
    void backward_input_relu(const MatmulLane& lane, const In* d_y, const In* w,
                             const std::uint8_t* bits, int rows, int in, int out, Out* d_x,
                             Out* d_bias) const;
    // d_w, and d_bias[out], the sums of d_y over rows
    template <class In, class Out>
    void backward_weight_bias(const MatmulLane& lane, const In* d_y, const In* x, int rows, int in,
                              int out, Out* d_w, Out* d_bias) const;

    // Whether cuBLASLt computes it here.
    bool has(const MatmulProduct& product) const { return !plans_->candidates(product).empty(); }
    MatmulTypes types_of_floats() const { return types_of_floats_; }

    // The products that were asked for, each once.
    std::vector<MatmulProduct> products() const { return plans_->products(); }

  private:
    template <class In, class Out>
    void multiply(const MatmulLane& lane, MatmulProduct product, const In* a, const In* b, Out* d,
                  const MatmulExtra& extra) const;

    const MatmulTypes types_of_floats_;
    const std::unique_ptr<MatmulPlans> plans_;  // made when they are first needed
};

}  // namespace vae::gpu
