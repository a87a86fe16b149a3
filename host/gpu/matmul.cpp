#include "host/gpu/matmul.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace vae::gpu {
namespace {

// No algorithm wants more than what one access of 16 bytes does.
constexpr std::uintptr_t kMostAlignment = 16;

int alignment_of(const void* a, const void* b, const void* d) {
    const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(a) |
                                reinterpret_cast<std::uintptr_t>(b) |
                                reinterpret_cast<std::uintptr_t>(d) | kMostAlignment;
    return static_cast<int>(bits & (~bits + 1));
}

}  // namespace

void run_plan(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan, const void* a,
              const void* b, void* d, bool accumulate) {
    const float one = 1;
    const float beta = accumulate ? 1 : 0;
    MatmulProblem& problem = plan.problem;
    cublas_check(cublasLtMatmul(handle, &problem.operation, &one, a, &problem.a, b, &problem.b,
                                &beta, d, &problem.d, d, &problem.d, &plan.algorithm,
                                lane.workspace.data(), lane.workspace.bytes(), lane.stream.get()),
                 "cublasLtMatmul");
}

template <class In, class Out>
void Matmul::multiply(const MatmulLane& lane, MatmulProduct product, const In* a, const In* b,
                      Out* d, bool accumulate) const {
    if constexpr (std::is_same_v<In, float>) {
        static_assert(std::is_same_v<Out, float>);
        product.types = types_of_floats_;
    } else {
        product.types = std::is_same_v<Out, float> ? MatmulTypes::bf16_to_fp32 : MatmulTypes::bf16;
    }
    product.alignment = alignment_of(a, b, d);
    run_plan(plans_->handle(), lane, plans_->of(product), a, b, d, accumulate);
}

template <class In, class Out>
void Matmul::forward(const MatmulLane& lane, const In* x, const In* w, int rows, int in, int out,
                     Out* y) const {
    multiply(lane, {.kind = MatmulKind::forward, .rows = rows, .in = in, .out = out}, w, x, y,
             false);
}

template <class In, class Out>
void Matmul::backward_input(const MatmulLane& lane, const In* d_y, const In* w, int rows, int in,
                            int out, Out* d_x) const {
    multiply(lane, {.kind = MatmulKind::backward_input, .rows = rows, .in = in, .out = out}, w, d_y,
             d_x, false);
}

template <class In, class Out>
void Matmul::backward_weight(const MatmulLane& lane, const In* d_y, const In* x, int rows, int in,
                             int out, Out* d_w, bool accumulate) const {
    multiply(lane, {.kind = MatmulKind::backward_weight, .rows = rows, .in = in, .out = out}, x,
             d_y, d_w, accumulate);
}

using Bf16 = __nv_bfloat16;

template void Matmul::forward(const MatmulLane&, const float*, const float*, int, int, int,
                              float*) const;
template void Matmul::forward(const MatmulLane&, const Bf16*, const Bf16*, int, int, int,
                              float*) const;
template void Matmul::forward(const MatmulLane&, const Bf16*, const Bf16*, int, int, int,
                              Bf16*) const;
template void Matmul::backward_input(const MatmulLane&, const float*, const float*, int, int, int,
                                     float*) const;
template void Matmul::backward_input(const MatmulLane&, const Bf16*, const Bf16*, int, int, int,
                                     float*) const;
template void Matmul::backward_input(const MatmulLane&, const Bf16*, const Bf16*, int, int, int,
                                     Bf16*) const;
template void Matmul::backward_weight(const MatmulLane&, const float*, const float*, int, int, int,
                                      float*, bool) const;
template void Matmul::backward_weight(const MatmulLane&, const Bf16*, const Bf16*, int, int, int,
                                      float*, bool) const;
template void Matmul::backward_weight(const MatmulLane&, const Bf16*, const Bf16*, int, int, int,
                                      Bf16*, bool) const;

}  // namespace vae::gpu
