// What the emulated cuBLASLt can compute, and what it refuses as the library does.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

#include "cublaslt.h"

namespace emulation {
namespace {

constexpr std::size_t kWorkspaceAlignment = 16;
constexpr std::int64_t kMaskAlignment = 128;  // bits, of the leading dimension of a ReLU's mask

bool is_known(std::int32_t operation) {
    return operation == CUBLAS_OP_N || operation == CUBLAS_OP_T;
}

bool are_known_types(const LtProduct& p) {
    const bool is_fp32 = p.a.type == CUDA_R_32F && p.b.type == CUDA_R_32F;
    const bool is_bf16 = p.a.type == CUDA_R_16BF && p.b.type == CUDA_R_16BF;
    const bool is_result =
        p.c.type == p.d.type && (p.d.type == CUDA_R_32F || (is_bf16 && p.d.type == CUDA_R_16BF));
    const cublasComputeType_t compute = p.operation.compute;
    const bool is_compute = is_bf16 ? compute == CUBLAS_COMPUTE_32F
                                    : compute == CUBLAS_COMPUTE_32F ||
                                          compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                                          compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    return (is_fp32 || is_bf16) && is_result && is_compute && p.operation.scale_type == CUDA_R_32F;
}

bool is_known_epilogue(std::uint32_t epilogue) {
    constexpr std::array<std::uint32_t, 10> kKnown = {
        CUBLASLT_EPILOGUE_DEFAULT,  CUBLASLT_EPILOGUE_RELU,          CUBLASLT_EPILOGUE_BIAS,
        CUBLASLT_EPILOGUE_RELU_AUX, CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_RELU_BIAS,
        CUBLASLT_EPILOGUE_DRELU,    CUBLASLT_EPILOGUE_DRELU_BGRAD,   CUBLASLT_EPILOGUE_BGRADA,
        CUBLASLT_EPILOGUE_BGRADB};
    return std::find(kKnown.begin(), kKnown.end(), epilogue) != kKnown.end();
}

bool is_layout(const LtLayout& layout, std::uint64_t rows, std::uint64_t columns) {
    return layout.rows == rows && layout.columns == columns &&
           layout.ld >= static_cast<std::int64_t>(rows);
}

// Sets m, n and k; false if the matrices do not fit each other or are empty.
bool read_shape(LtProduct& p) {
    const auto& [rows_a, columns_a] = std::pair(p.a.rows, p.a.columns);
    const bool is_a_plain = p.operation.trans_a == CUBLAS_OP_N;
    const bool is_b_plain = p.operation.trans_b == CUBLAS_OP_N;
    const std::uint64_t m = is_a_plain ? rows_a : columns_a;
    const std::uint64_t k = is_a_plain ? columns_a : rows_a;
    const std::uint64_t n = is_b_plain ? p.b.columns : p.b.rows;
    constexpr std::uint64_t kMost = std::numeric_limits<int>::max();
    if (std::min({m, n, k}) == 0 || std::max({m, n, k}) > kMost) return false;
    if (!is_layout(p.a, rows_a, columns_a) || !is_layout(p.c, m, n) || !is_layout(p.d, m, n) ||
        !is_layout(p.b, is_b_plain ? k : n, is_b_plain ? n : k)) {
        return false;
    }
    p.m = static_cast<int>(m);
    p.n = static_cast<int>(n);
    p.k = static_cast<int>(k);
    return true;
}

bool is_aligned(const void* pointer, std::size_t alignment) {
    return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

// What is wrong with the bias of an epilogue, or the vector of its gradient; empty if nothing is.
// Whoever asks for an algorithm names an address too.
std::string wrong_bias(const LtProduct& p) {
    const LtOperation& operation = p.operation;
    if (!operation.has_bias()) {
        return operation.bias == nullptr ? "" : "an epilogue without a bias was given one";
    }
    if (operation.bias == nullptr || !is_aligned(operation.bias, size_of(p.d.type))) {
        return "an epilogue's bias is missing or not aligned to the result's type";
    }
    // It is the sum of the columns of a factor as that is stored: there is one for each of k.
    const bool is_plain_a = operation.trans_a == CUBLAS_OP_N;
    const bool is_plain_b = operation.trans_b == CUBLAS_OP_N;
    if (operation.epilogue == CUBLASLT_EPILOGUE_BGRADA && !is_plain_a) {
        return "the gradient of a bias from A needs A as it is";
    }
    if (operation.epilogue == CUBLASLT_EPILOGUE_BGRADB && is_plain_b) {
        return "the gradient of a bias from B needs B transposed";
    }
    return "";
}

// Likewise with the mask of a ReLU.
std::string wrong_mask(const LtProduct& p) {
    const LtOperation& operation = p.operation;
    if (!operation.has_mask()) {
        return operation.aux == nullptr ? "" : "an epilogue without a mask was given one";
    }
    if (operation.aux == nullptr || !is_aligned(operation.aux, kTensorAlignment)) {
        return "a ReLU's mask is missing or not aligned";
    }
    if (operation.aux_ld % kMaskAlignment != 0 || operation.aux_ld < p.m) {
        return fmt::format(
            "a ReLU's mask has {} bits a column: it must be a multiple of 128 and at least {}",
            operation.aux_ld, p.m);
    }
    return "";
}

cublasStatus_t check_epilogue(const LtProduct& p) {
    const LtOperation& operation = p.operation;
    if (!is_known_epilogue(operation.epilogue)) {
        return refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED,
                         fmt::format("cuBLASLt: epilogue {} is not emulated", operation.epilogue));
    }
    if (operation.bias_type != -1 && static_cast<std::uint32_t>(operation.bias_type) != p.d.type) {
        return refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED,
                         "cuBLASLt: a bias and its gradient are of the result's type");
    }
    for (const std::string& wrong : {wrong_bias(p), wrong_mask(p)}) {
        if (!wrong.empty()) return refuse_lt(CUBLAS_STATUS_INVALID_VALUE, "cuBLASLt: " + wrong);
    }
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

cublasStatus_t read_product(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                            cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                            cublasLtMatrixLayout_t d, LtProduct& product) {
    if (!load(operation, product.operation) || !load(a, product.a) || !load(b, product.b) ||
        !load(c, product.c) || !load(d, product.d)) {
        return refuse_lt(CUBLAS_STATUS_INVALID_VALUE, "cuBLASLt: a descriptor is not initialised");
    }
    const LtOperation& of = product.operation;
    if (!is_known(of.trans_a) || !is_known(of.trans_b) ||
        of.pointer_mode != CUBLASLT_POINTER_MODE_HOST || !are_known_types(product)) {
        return refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED,
                         "cuBLASLt: these types, or this mode, are not emulated");
    }
    for (const LtLayout* layout : {&product.a, &product.b, &product.c, &product.d}) {
        if (layout->order != CUBLASLT_ORDER_COL || layout->batch != 1) {
            return refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED,
                             "cuBLASLt: only single column-major matrices are emulated");
        }
    }
    if (!read_shape(product)) {
        return refuse_lt(CUBLAS_STATUS_INVALID_VALUE,
                         "cuBLASLt: the shapes of the matrices do not fit, or one is empty");
    }
    return check_epilogue(product);
}

cublasStatus_t check_call(const LtProduct& product, const LtPlan& plan, const LtOperands& operands,
                          std::size_t workspace_bytes) {
    if (plan.workspace > workspace_bytes) {
        return refuse_lt(CUBLAS_STATUS_INVALID_VALUE,
                         fmt::format("cuBLASLt: the algorithm needs {} bytes of workspace and was "
                                     "given {}",
                                     plan.workspace, workspace_bytes));
    }
    if (workspace_bytes > 0 && (!is_aligned(operands.workspace, kWorkspaceAlignment) ||
                                !is_device_range(operands.workspace, workspace_bytes))) {
        return refuse_lt(CUBLAS_STATUS_INVALID_VALUE,
                         "cuBLASLt: the workspace is not aligned memory of the device");
    }
    for (const auto& [pointer, type] :
         {std::pair(operands.a, product.a.type), std::pair(operands.b, product.b.type),
          std::pair<const void*, std::uint32_t>(operands.d, product.d.type)}) {
        if (pointer == nullptr || !is_aligned(pointer, std::max(plan.alignment, size_of(type)))) {
            return refuse_lt(CUBLAS_STATUS_INVALID_VALUE,
                             fmt::format("cuBLASLt: a matrix of a product {}x{}x{} is not aligned "
                                         "to {} bytes, as its algorithm needs",
                                         product.m, product.n, product.k, plan.alignment));
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace emulation
