#include "host/gpu/matmul.h"

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "host/gpu/graph.h"

namespace vae::gpu {

using kernels::Storage;

namespace {

// No algorithm wants more than what one access of 16 bytes does.
constexpr std::uintptr_t kMostAlignment = 16;

// Of null, the most.
int alignment_of(std::initializer_list<const void*> addresses) {
    std::uintptr_t bits = kMostAlignment;
    for (const void* address : addresses) bits |= reinterpret_cast<std::uintptr_t>(address);
    return static_cast<int>(bits & (~bits + 1));
}

cublasStatus_t try_plan(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan,
                        const void* a, const void* b, void* d, const MatmulExtra& extra) {
    const float one = 1;
    const float beta = extra.accumulate ? 1 : 0;
    MatmulProblem& problem = plan.problem;
    problem.set_side(extra.bias, extra.bits);
    return cublasLtMatmul(handle, &problem.operation, &one, a, &problem.a, b, &problem.b, &beta, d,
                          &problem.d, d, &problem.d, &plan.algorithm, lane.workspace.data(),
                          lane.workspace.bytes(), lane.stream.get());
}

}  // namespace

void run_plan(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan, const void* a,
              const void* b, void* d, const MatmulExtra& extra) {
    cublas_check(try_plan(handle, lane, plan, a, b, d, extra), "cublasLtMatmul");
}

MatmulTypes Matmul::types_of(Storage factors, Storage result) const {
    if (factors == Storage::fp32) {
        if (result != Storage::fp32) {
            throw std::invalid_argument("Matmul: a result in bf16 of factors in FP32");
        }
        return types_of_floats_;
    }
    return result == Storage::fp32 ? MatmulTypes::bf16_to_fp32 : MatmulTypes::bf16;
}

bool Matmul::is_fused(const MatmulLane& lane, const MatmulProduct& product) const {
    MatmulPlan* const plan = plans_->find(product);
    if (plan == nullptr) return false;
    // Nobody reads or writes there: what is captured is dropped.
    void* const somewhere = lane.workspace.data();
    const MatmulExtra extra = {.bias = has_bias(product.epilogue) ? somewhere : nullptr,
                               .bits = has_bits(product.epilogue) ? somewhere : nullptr};
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    try {
        const std::size_t nodes = count_nodes(lane.stream, [&] {
            status =
                try_plan(plans_->handle(), lane, *plan, somewhere, somewhere, somewhere, extra);
            cublas_check(status, "cublasLtMatmul");
        });
        return nodes <= static_cast<std::size_t>(least_kernels(plan->algorithm));
    } catch (const RunError&) {
        if (is_refusal(status)) return false;
        throw;
    }
}

// cuBLASLt takes a bias for stored as the result.
const void* Matmul::bias_of(ConstReals bias, ConstReals result) {
    if (bias.storage != result.storage) {
        throw std::invalid_argument("Matmul: a bias that is not stored as the result");
    }
    return bias.data;
}

void Matmul::multiply(const MatmulLane& lane, MatmulProduct product, ConstReals a, ConstReals b,
                      Reals d, const MatmulExtra& extra) const {
    if (a.storage != b.storage) {
        throw std::invalid_argument("Matmul: factors that are stored in two ways");
    }
    product.types = types_of(a.storage, d.storage);
    product.alignment = alignment_of({a.data, b.data, d.data, extra.bias, extra.bits});
    const auto run = [&] {
        run_plan(plans_->handle(), lane, plans_->of(product), a.data, b.data, d.data, extra);
    };
    if (kernels::launch_observer() == nullptr) return run();
    const std::string epilogue = product.epilogue == MatmulEpilogue::none
                                     ? ""
                                     : fmt::format(" {}", name_of(product.epilogue));
    kernels::observed(fmt::format("product {}{} {}x{}x{}", name_of(product.kind), epilogue,
                                  product.rows, product.in, product.out),
                      lane.stream.get(), run);
}

void Matmul::forward(const MatmulLane& lane, ConstReals x, ConstReals w, int rows, int in, int out,
                     Reals y) const {
    multiply(lane, {.kind = MatmulKind::forward, .rows = rows, .in = in, .out = out}, w, x, y, {});
}

void Matmul::backward_input(const MatmulLane& lane, ConstReals d_y, ConstReals w, int rows, int in,
                            int out, Reals d_x) const {
    multiply(lane, {.kind = MatmulKind::backward_input, .rows = rows, .in = in, .out = out}, w, d_y,
             d_x, {});
}

void Matmul::backward_weight(const MatmulLane& lane, ConstReals d_y, ConstReals x, int rows, int in,
                             int out, Reals d_w, bool accumulate) const {
    multiply(lane, {.kind = MatmulKind::backward_weight, .rows = rows, .in = in, .out = out}, x,
             d_y, d_w, {.accumulate = accumulate});
}

void Matmul::forward_relu(const MatmulLane& lane, ConstReals x, ConstReals w, ConstReals bias,
                          int rows, int in, int out, Reals y, std::uint8_t* bits) const {
    multiply(lane,
             {.kind = MatmulKind::forward,
              .epilogue = MatmulEpilogue::bias_relu,
              .rows = rows,
              .in = in,
              .out = out},
             w, x, y, {.bias = bias_of(bias, y), .bits = bits});
}

void Matmul::backward_input_relu(const MatmulLane& lane, ConstReals d_y, ConstReals w,
                                 const std::uint8_t* bits, int rows, int in, int out,
                                 Reals d_x) const {
    multiply(lane,
             {.kind = MatmulKind::backward_input,
              .epilogue = MatmulEpilogue::relu_backward,
              .rows = rows,
              .in = in,
              .out = out},
             w, d_y, d_x, {.bits = bits});
}

void Matmul::backward_weight_bias(const MatmulLane& lane, ConstReals d_y, ConstReals x, int rows,
                                  int in, int out, Reals d_w, Reals d_bias) const {
    multiply(lane,
             {.kind = MatmulKind::backward_weight,
              .epilogue = MatmulEpilogue::bias_gradient,
              .rows = rows,
              .in = in,
              .out = out},
             x, d_y, d_w, {.bias = bias_of(d_bias, d_w)});
}

}  // namespace vae::gpu
