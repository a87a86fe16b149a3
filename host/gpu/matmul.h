// The matrix products of a dense layer, in cuBLASLt. All matrices are row-major and dense, on the
// device; sizes are at least 1.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "host/config.h"
#include "host/gpu/device_array.h"
#include "host/gpu/matmul_plans.h"
#include "kernels/reals.h"

namespace vae::gpu {

using kernels::ConstReals;
using kernels::Reals;

// Where products are computed: a stream, and a workspace that no other stream uses at the same
// time. One for each stream whose work may overlap. The stream outlives it.
struct MatmulLane {
    MatmulLane(const Stream& on, DeviceArena& arena)
        : stream(on), workspace(arena, kMatmulWorkspaceBytes, kWorkspaceUse) {}
    // With memory of its own.
    explicit MatmulLane(const Stream& on)
        : stream(on), workspace(kMatmulWorkspaceBytes, kWorkspaceUse) {}

    const Stream& stream;
    // Scratch: that products write it changes nothing that anybody sees.
    mutable DeviceArray<unsigned char> workspace;

  private:
    static constexpr const char* kWorkspaceUse = "the cuBLASLt workspace";
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

// Both factors are stored alike; the result is FP32, or bf16 if they are. Of floats the product is
// in FP32 or TF32, as the precision says; of bf16 it is exact before the sum. Sums are FP32. Bits:
// see MatmulPlans. Throws RunError when cuBLASLt fails, std::invalid_argument for other storage.
class Matmul {
  public:
    // fp32: products of floats compute in FP32; tf32 and bf16: in TF32.
    explicit Matmul(Precision precision)
        : types_of_floats_(precision == Precision::fp32 ? MatmulTypes::fp32 : MatmulTypes::tf32),
          plans_(std::make_unique<MatmulPlans>()) {}

    // y[rows, out] = x[rows, in] · w[out, in]ᵀ
    void forward(const MatmulLane& lane, ConstReals x, ConstReals w, int rows, int in, int out,
                 Reals y) const;
    // d_x[rows, in] = d_y[rows, out] · w[out, in]
    void backward_input(const MatmulLane& lane, ConstReals d_y, ConstReals w, int rows, int in,
                        int out, Reals d_x) const;
    // d_w[out, in] = d_y[rows, out]ᵀ · x[rows, in], added to what d_w holds if so asked
    void backward_weight(const MatmulLane& lane, ConstReals d_y, ConstReals x, int rows, int in,
                         int out, Reals d_w, bool accumulate = false) const;

    // The same with an epilogue, of which cuBLASLt may have none for some types and shapes on some
    // GPUs: ask has(). Bits of a ReLU are [rows, relu_bits_pitch(width)].
    //
    // y = max(x·wᵀ + bias[out], 0), and the bits of y (see MatmulEpilogue of 0 and NaN)
    void forward_relu(const MatmulLane& lane, ConstReals x, ConstReals w, ConstReals bias, int rows,
                      int in, int out, Reals y, std::uint8_t* bits) const;
    // d_x, but 0 where the bits of x are not set
    void backward_input_relu(const MatmulLane& lane, ConstReals d_y, ConstReals w,
                             const std::uint8_t* bits, int rows, int in, int out, Reals d_x) const;
    // d_w, and d_bias[out], the sums of d_y over rows; stored alike
    void backward_weight_bias(const MatmulLane& lane, ConstReals d_y, ConstReals x, int rows,
                              int in, int out, Reals d_w, Reals d_bias) const;

    // Of factors stored alike.
    MatmulTypes types_of(kernels::Storage factors, kernels::Storage result) const;
    // Whether cuBLASLt computes it here. Not while a stream of this thread captures.
    bool has(const MatmulProduct& product) const { return plans_->find(product) != nullptr; }
    // Whether it does so without a kernel of the epilogue's own, beside those of the product (one,
    // or two where the sum is split). They are counted in a captured graph of the plan that the
    // product would be computed by; nothing is computed.
    bool is_fused(const MatmulLane& lane, const MatmulProduct& product) const;

    // The products that were computed, each once.
    std::vector<MatmulProduct> products() const { return plans_->products(); }

  private:
    static const void* bias_of(ConstReals bias, ConstReals result);
    void multiply(const MatmulLane& lane, MatmulProduct product, ConstReals a, ConstReals b,
                  Reals d, const MatmulExtra& extra) const;

    const MatmulTypes types_of_floats_;
    const std::unique_ptr<MatmulPlans> plans_;  // made when they are first needed
};

}  // namespace vae::gpu
