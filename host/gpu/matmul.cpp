#include "host/gpu/matmul.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace vae::gpu {
namespace {

// No algorithm wants more than what one access of 16 bytes does.
constexpr std::uintptr_t kMostAlignment = 16;

// Of null, the most.
int alignment_of(std::initializer_list<const void*> addresses) {
    std::uintptr_t bits = kMostAlignment;
    for (const void* address : addresses) bits |= reinterpret_cast<std::uintptr_t>(address);
    return static_cast<int>(bits & (~bits + 1));
}

}  // namespace

void run_plan(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan, const void* a,
              const void* b, void* d, const MatmulExtra& extra) {
    const float one = 1;
    const float beta = extra.accumulate ? 1 : 0;
    MatmulProblem& problem = plan.problem;
    problem.set_side(extra.bias, extra.bits);
    cublas_check(cublasLtMatmul(handle, &problem.operation, &one, a, &problem.a, b, &problem.b,
                                &beta, d, &problem.d, d, &problem.d, &plan.algorithm,
                                lane.workspace.data(), lane.workspace.bytes(), lane.stream.get()),
                 "cublasLtMatmul");
}

template <class In, class Out>
void Matmul::multiply(const MatmulLane& lane, MatmulProduct product, const In* a, const In* b,
                      Out* d, const MatmulExtra& extra) const {
    if constexpr (std::is_same_v<In, float>) {
        static_assert(std::is_same_v<Out, float>);
        product.types = types_of_floats_;
    } else {
        product.types = std::is_same_v<Out, float> ? MatmulTypes::bf16_to_fp32 : MatmulTypes::bf16;
    }
    product.alignment = alignment_of({a, b, d, extra.bias, extra.bits});
    run_plan(plans_->handle(), lane, plans_->of(product), a, b, d, extra);
}

template <class In, class Out>
void Matmul::forward(const MatmulLane& lane, const In* x, const In* w, int rows, int in, int out,
                     Out* y) const {
    multiply(lane, {.kind = MatmulKind::forward, .rows = rows, .in = in, .out = out}, w, x, y, {});
}

template <class In, class Out>
void Matmul::backward_input(const MatmulLane& lane, const In* d_y, const In* w, int rows, int in,
                            int out, Out* d_x) const {
    multiply(lane, {.kind = MatmulKind::backward_input, .rows = rows, .in = in, .out = out}, w, d_y,
             d_x, {});
}

template <class In, class Out>
void Matmul::backward_weight(const MatmulLane& lane, const In* d_y, const In* x, int rows, int in,
                             int out, Out* d_w, bool accumulate) const {
    multiply(lane, {.kind = MatmulKind::backward_weight, .rows = rows, .in = in, .out = out}, x,
             d_y, d_w, {.accumulate = accumulate});
}

template <class In, class Out>
void Matmul::forward_relu(const MatmulLane& lane, const In* x, const In* w, const Out* bias,
                          int rows, int in, int out, Out* y, std::uint8_t* bits) const {
    multiply(lane,
             {.kind = MatmulKind::forward,
              .epilogue = MatmulEpilogue::bias_relu,
              .rows = rows,
              .in = in,
              .out = out},
             w, x, y, {.bias = bias, .bits = bits});
}

template <class In, class Out>
void Matmul::backward_input_relu(const MatmulLane& lane, const In* d_y, const In* w,
                                 const std::uint8_t* bits, int rows, int in, int out, Out* d_x,
                                 Out* d_bias) const {
    multiply(lane,
             {.kind = MatmulKind::backward_input,
              .epilogue = MatmulEpilogue::relu_backward,
              .rows = rows,
              .in = in,
              .out = out},
             w, d_y, d_x, {.bias = d_bias, .bits = bits});
}

template <class In, class Out>
void Matmul::backward_weight_bias(const MatmulLane& lane, const In* d_y, const In* x, int rows,
                                  int in, int out, Out* d_w, Out* d_bias) const {
    multiply(lane,
             {.kind = MatmulKind::backward_weight,
              .epilogue = MatmulEpilogue::bias_gradient,
              .rows = rows,
              .in = in,
              .out = out},
             x, d_y, d_w, {.bias = d_bias});
}

using Bf16 = __nv_bfloat16;

// Every product for one pair of types.
#define VAE_INSTANTIATE(In, Out)                                                                  \
    template void Matmul::forward(const MatmulLane&, const In*, const In*, int, int, int, Out*)   \
        const;                                                                                    \
    template void Matmul::backward_input(const MatmulLane&, const In*, const In*, int, int, int,  \
                                         Out*) const;                                             \
    template void Matmul::backward_weight(const MatmulLane&, const In*, const In*, int, int, int, \
                                          Out*, bool) const;                                      \
    template void Matmul::forward_relu(const MatmulLane&, const In*, const In*, const Out*, int,  \
                                       int, int, Out*, std::uint8_t*) const;                      \
    template void Matmul::backward_input_relu(const MatmulLane&, const In*, const In*,            \
                                              const std::uint8_t*, int, int, int, Out*, Out*)     \
        const;                                                                                    \
    template void Matmul::backward_weight_bias(const MatmulLane&, const In*, const In*, int, int, \
                                               int, Out*, Out*) const;
VAE_INSTANTIATE(float, float)
VAE_INSTANTIATE(Bf16, float)
VAE_INSTANTIATE(Bf16, Bf16)
#undef VAE_INSTANTIATE

}  // namespace vae::gpu
