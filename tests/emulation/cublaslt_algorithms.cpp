// In which ways the emulated cuBLASLt computes a product, and which of them it proposes.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cublaslt.h"

namespace emulation {
namespace {

constexpr std::size_t kCounterBytes = 1024;  // of a sum that is added in place

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

}  // namespace

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
