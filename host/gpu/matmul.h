// The matrix products of a dense layer, in cuBLASLt. All matrices are row-major and dense, on the
// device; sizes are at least 1.
#pragma once

#include <cuda_bf16.h>

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

    // The products that were asked for, each once.
    std::vector<MatmulProduct> products() const { return plans_->products(); }

  private:
    template <class In, class Out>
    void multiply(const MatmulLane& lane, MatmulProduct product, const In* a, const In* b, Out* d,
                  bool accumulate) const;

    const MatmulTypes types_of_floats_;
    const std::unique_ptr<MatmulPlans> plans_;  // made when they are first needed
};

// d = a·b of a plan, column-major, as cuBLASLt names its factors; d += a·b if so asked.
void run_plan(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan, const void* a,
              const void* b, void* d, bool accumulate);

}  // namespace vae::gpu
