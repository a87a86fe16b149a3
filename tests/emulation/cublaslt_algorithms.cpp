// What the emulated cuBLASLt can compute, and in which ways.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "cublaslt.h"

namespace emulation {
namespace {

constexpr std::size_t kTensorAlignment = 16;  // bytes; of what reads four floats at once
constexpr std::size_t kWorkspaceAlignment = 16;
constexpr std::size_t kCounterBytes = 1024;   // of a sum that is added in place
constexpr std::int64_t kMaskAlignment = 128;  // bits, of the leading dimension of a ReLU's mask

struct Way {
    std::int32_t id;
    std::uint32_t tile;
    std::int32_t splits;
    std::uint32_t reduction;
    int chunk;               // of the sum over k: other sums, other bits
    bool needs_alignment;    // on tensor cores
    std::size_t more_bytes;  // of workspace
    int block = 0;           // of a split that loses what is left behind the last whole one

    // Whether the parts of a split are added one after the other by the product's own kernel.
    bool is_serial() const { return splits > 1 && reduction == CUBLASLT_REDUCTION_SCHEME_NONE; }
};

// From the fastest on, as a heuristic might guess for a short sum.
constexpr std::array kWays = {
    Way{10, CUBLASLT_MATMUL_TILE_128x128, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 0, true, 0},
    Way{11, CUBLASLT_MATMUL_TILE_64x64, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 32, true, 0},
    Way{17, CUBLASLT_MATMUL_TILE_128x64, 2, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 0, true, 0, 64},
    Way{12, CUBLASLT_MATMUL_TILE_64x64, 4, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 0, false, 0},
    Way{13, CUBLASLT_MATMUL_TILE_64x64, 3, CUBLASLT_REDUCTION_SCHEME_INPLACE, 0, false, 0},
    Way{14, CUBLASLT_MATMUL_TILE_64x64, 2, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 0, false, 0},
    Way{18, CUBLASLT_MATMUL_TILE_32x64, 3, CUBLASLT_REDUCTION_SCHEME_NONE, 0, false, 0},
    Way{19, CUBLASLT_MATMUL_TILE_64x32, -1, CUBLASLT_REDUCTION_SCHEME_NONE, 0, false, 0},
    Way{15, CUBLASLT_MATMUL_TILE_32x32, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 16, false, 0},
    Way{16, CUBLASLT_MATMUL_TILE_256x128, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 0, true,
        std::size_t{64} << 20},
};

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

std::uint64_t signature_of(const LtProduct& p) {
    const LtOperation& operation = p.operation;
    return static_cast<std::uint64_t>(operation.compute) | std::uint64_t{p.a.type} << 16 |
           std::uint64_t{p.d.type} << 24 | static_cast<std::uint64_t>(operation.trans_a) << 32 |
           static_cast<std::uint64_t>(operation.trans_b) << 34 |
           std::uint64_t{operation.epilogue} << 36;
}

std::size_t workspace_of(const LtProduct& p, const Way& way) {
    const std::size_t elements = static_cast<std::size_t>(p.m) * static_cast<std::size_t>(p.n);
    const auto splits = static_cast<std::size_t>(way.splits);
    switch (way.reduction) {
        case CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE:
            return splits * elements * sizeof(float);
        case CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE:
            return splits * elements * size_of(p.d.type);
        case CUBLASLT_REDUCTION_SCHEME_INPLACE:
            return kCounterBytes;
        default:
            return way.more_bytes;
    }
}

EpilogueWay epilogue_way(const LtProduct& p) {
    const auto& set = runtime().epilogues;
    const auto found = set.find(p.operation.epilogue);
    if (found != set.end() && found->second != EpilogueWay::by_type) return found->second;
    return p.is_bf16() ? EpilogueWay::fused : EpilogueWay::apart;
}

// How many of k terms a way adds: not all where the library's own kernels are known to lose some.
int terms_of(const Way& way, int k) {
    if (way.block == 0) return k;
    const int left = k % way.block;
    const bool loses = k / way.block % way.splits == 0 && way.splits > left;
    return loses ? k - left : k;
}

// Whether the way is one for the product; then `plan` is it.
bool plan_way(const LtProduct& p, const Way& way, LtPlan& plan) {
    if (way.is_serial() && !p.is_bf16() && !runtime().only_serial_sums) return false;
    if (way.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE && !(p.d.type == CUDA_R_16BF)) {
        return false;
    }
    plan.algorithm = {.id = way.id,
                      .tile = way.tile,
                      .splits = way.splits,
                      .reduction = way.reduction,
                      .types = signature_of(p)};
    const bool is_too_short = way.splits != 1 && p.k < 2 * plan.algorithm.parts();
    if (is_too_short && !runtime().only_serial_sums) return false;
    if (p.has_epilogue()) {
        const EpilogueWay epilogue = epilogue_way(p);
        if (epilogue == EpilogueWay::none) return false;
        plan.fuses_epilogue = epilogue == EpilogueWay::fused;
    }
    const bool on_tensor_cores = p.is_tf32() || p.is_bf16();
    if (way.block > 0 && !on_tensor_cores) return false;
    plan.terms = terms_of(way, p.k);
    plan.chunk = way.chunk;
    plan.alignment = way.needs_alignment && on_tensor_cores ? kTensorAlignment : 1;
    plan.workspace = workspace_of(p, way);
    for (const LtLayout* layout : {&p.a, &p.b, &p.d}) {
        const auto pitch = static_cast<std::size_t>(layout->ld) * size_of(layout->type);
        if (pitch % plan.alignment != 0) return false;
    }
    return true;
}

bool is_allowed(const LtPlan& plan, const LtPreference& preference) {
    const std::uint32_t alignment =
        std::min({preference.alignment_a, preference.alignment_b, preference.alignment_d});
    const std::uint32_t reduction = plan.algorithm.reduction;
    return plan.workspace <= preference.workspace && plan.alignment <= alignment &&
           (reduction == CUBLASLT_REDUCTION_SCHEME_NONE ||
            (reduction & preference.reductions) != 0);
}

bool is_unaligned(const LtProduct& p, const LtPreference& preference) {
    for (const auto& [layout, alignment] :
         {std::pair(p.a, preference.alignment_a), std::pair(p.b, preference.alignment_b),
          std::pair(p.d, preference.alignment_d)}) {
        const auto pitch = static_cast<std::size_t>(layout.ld) * size_of(layout.type);
        if (alignment < kTensorAlignment || pitch % kTensorAlignment != 0) return true;
    }
    return false;
}

// When a way is proposed. A long sum of a small result wants to be split; 16-bit matrices that are
// not aligned are of older kernels, which split one after the other.
int rank_of(const LtProduct& p, const LtPreference& preference, const Way& way) {
    if (way.is_serial() && is_unaligned(p, preference)) return 0;
    const bool is_split_first = p.k >= 4 * std::max(p.m, p.n);
    return (way.splits != 1) == is_split_first ? 1 : 2;
}

cublasStatus_t find_plans(const LtProduct& product, const LtPreference& preference, int wanted,
                          cublasLtMatmulHeuristicResult_t* results, int& found) {
    found = 0;
    if (preference.search_mode != CUBLASLT_SEARCH_BEST_FIT) {
        return refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED, "cuBLASLt: this search is not emulated");
    }
    for (const int rank : {0, 1, 2}) {
        for (const Way& way : kWays) {
            LtPlan plan;
            if (rank_of(product, preference, way) != rank || found == wanted) continue;
            if (runtime().only_serial_sums && !way.is_serial()) continue;
            if (!plan_way(product, way, plan) || !is_allowed(plan, preference)) continue;
            cublasLtMatmulHeuristicResult_t& result = results[found++];
            result = {};
            store(plan.algorithm, &result.algo);
            result.workspaceSize = plan.workspace;
            result.state = CUBLAS_STATUS_SUCCESS;
            result.wavesCount = 1;
        }
    }
    return found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
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

bool plan_of(const LtProduct& product, const LtAlgorithm& algorithm, LtPlan& plan) {
    for (Way way : kWays) {
        if (way.id != algorithm.id) continue;
        if (algorithm.splits == 1) {
            way.splits = 1;
            way.reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
            way.block = 0;
        }
        if (!plan_way(product, way, plan)) continue;
        return plan.algorithm.types == algorithm.types &&
               plan.algorithm.splits == algorithm.splits &&
               plan.algorithm.reduction == algorithm.reduction;
    }
    return false;
}

}  // namespace emulation

using emulation::call_lt;
using emulation::LtAlgorithm;
using emulation::LtPlan;
using emulation::LtPreference;
using emulation::LtProduct;

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
    return call_lt("cublasLtMatmulAlgoGetHeuristic", [&] {
        // On a device it may, and may not: who asks then has not planned ahead.
        if (emulation::check_no_capture("cublasLtMatmulAlgoGetHeuristic") != cudaSuccess) {
            return CUBLAS_STATUS_NOT_SUPPORTED;
        }
        if (!emulation::is_live(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
        LtPreference preferred;
        if (wanted < 1 || results == nullptr || found == nullptr ||
            !emulation::load(preference, preferred)) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        LtProduct product;
        const cublasStatus_t status = emulation::read_product(operation, a, b, c, d, product);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
        return emulation::find_plans(product, preferred, wanted, results, *found);
    });
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
    return call_lt("cublasLtMatmulAlgoCheck", [&] {
        // On a device it may, and may not: who asks then has not planned ahead.
        if (emulation::check_no_capture("cublasLtMatmulAlgoCheck") != cudaSuccess) {
            return CUBLAS_STATUS_NOT_SUPPORTED;
        }
        if (!emulation::is_live(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
        LtProduct product;
        const cublasStatus_t status = emulation::read_product(operation, a, b, c, d, product);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
        LtAlgorithm held;
        LtPlan plan;
        if (result == nullptr || !emulation::load(algorithm, held) ||
            !emulation::plan_of(product, held, plan)) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        result->workspaceSize = plan.workspace;
        result->state = CUBLAS_STATUS_SUCCESS;
        result->wavesCount = 1;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t layout_a,
                              const void* b, cublasLtMatrixLayout_t layout_b, const void* beta,
                              const void* c, cublasLtMatrixLayout_t layout_c, void* d,
                              cublasLtMatrixLayout_t layout_d,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
    return call_lt("cublasLtMatmul", [&] {
        if (!emulation::is_live(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
        if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        LtProduct product;
        cublasStatus_t status =
            emulation::read_product(operation, layout_a, layout_b, layout_c, layout_d, product);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
        LtAlgorithm held;
        LtPlan plan;
        // The real one would choose for a caller who names none, and anew at each call.
        if (!emulation::load(algorithm, held) || !emulation::plan_of(product, held, plan)) {
            return emulation::refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED,
                                        "cuBLASLt: no algorithm, or one of another product");
        }
        const emulation::LtOperands operands = {
            a,        b, c, d, *static_cast<const float*>(alpha), *static_cast<const float*>(beta),
            workspace};
        status = emulation::check_call(product, plan, operands, workspace_bytes);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
        if (emulation::check_stream(stream, "cublasLtMatmul") != cudaSuccess) {
            return CUBLAS_STATUS_EXECUTION_FAILED;
        }
        emulation::enqueue_product(stream, product, plan, operands);
        return CUBLAS_STATUS_SUCCESS;
    });
}

}  // extern "C"
