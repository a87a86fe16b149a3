// What the emulated cuBLASLt keeps in the descriptors that its callers own, and the products and
// algorithms that it knows.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "runtime.h"

namespace emulation {

// The descriptors are opaque arrays of words, which begin with one of these.
enum class LtKind : std::uint32_t { operation = 0x4c740001, layout, preference, algorithm };

struct LtOperation {
    LtKind kind = LtKind::operation;
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    std::int32_t scale_type = CUDA_R_32F;
    std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
    std::int32_t trans_a = CUBLAS_OP_N;
    std::int32_t trans_b = CUBLAS_OP_N;
    std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    std::int32_t bias_type = -1;  // that of D
    void* bias = nullptr;
    void* aux = nullptr;
    std::int64_t aux_ld = 0;

    // The bit of an epilogue that goes with a ReLU's mask, and whether it has a bias, or the
    // gradient of one.
    bool has_mask() const { return (epilogue & 128u) != 0; }
    bool has_bias() const {
        constexpr std::uint32_t kGradients =
            CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB |
            (CUBLASLT_EPILOGUE_DRELU_BGRAD & ~CUBLASLT_EPILOGUE_DRELU);
        return (epilogue & (CUBLASLT_EPILOGUE_BIAS | kGradients)) != 0;
    }
};

struct LtLayout {
    LtKind kind = LtKind::layout;
    std::uint32_t type = CUDA_R_32F;
    std::uint64_t rows = 0;
    std::uint64_t columns = 0;
    std::int64_t ld = 0;
    std::int32_t order = CUBLASLT_ORDER_COL;
    std::int32_t batch = 1;
};

struct LtPreference {
    LtKind kind = LtKind::preference;
    std::uint32_t search_mode = CUBLASLT_SEARCH_BEST_FIT;
    std::uint64_t workspace = 0;
    std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    std::uint32_t alignment_a = 256;  // bytes
    std::uint32_t alignment_b = 256;
    std::uint32_t alignment_c = 256;
    std::uint32_t alignment_d = 256;
};

struct LtAlgorithm {
    LtKind kind = LtKind::algorithm;
    std::int32_t id = 0;
    std::uint32_t tile = CUBLASLT_MATMUL_TILE_UNDEFINED;
    std::uint32_t stages = 0;
    std::int32_t splits = 1;  // below 0: as many as the library likes
    std::uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    std::uint64_t types = 0;  // of the products that it is for

    int parts() const { return splits < 0 ? 3 : std::max(splits, 1); }
};

static_assert(sizeof(LtOperation) <= sizeof(cublasLtMatmulDescOpaque_t));
static_assert(sizeof(LtLayout) <= sizeof(cublasLtMatrixLayoutOpaque_t));
static_assert(sizeof(LtPreference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));
static_assert(sizeof(LtAlgorithm) <= sizeof(cublasLtMatmulAlgo_t));

template <class T, class Opaque>
void store(const T& value, Opaque* opaque) {
    *opaque = {};
    std::memcpy(opaque->data, &value, sizeof value);
}

// Whether it is a descriptor of that kind; then `value` is what it holds.
template <class T, class Opaque>
bool load(const Opaque* opaque, T& value) {
    if (opaque == nullptr) return false;
    const LtKind kind = T().kind;
    std::memcpy(&value, opaque->data, sizeof value);
    return value.kind == kind;
}

// D = epilogue(alpha·op(A)·op(B) + beta·C), column-major, D [m, n], the sum over k.
struct LtProduct {
    LtOperation operation;
    LtLayout a, b, c, d;
    int m = 0, n = 0, k = 0;

    bool is_tf32() const { return operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32; }
    bool is_bf16() const { return a.type == CUDA_R_16BF; }
    bool has_epilogue() const { return operation.epilogue != CUBLASLT_EPILOGUE_DEFAULT; }
};

inline constexpr std::size_t kTensorAlignment = 16;  // bytes; of what reads four floats at once

std::size_t size_of(std::uint32_t type);

// Reads the descriptors. INVALID_VALUE when they do not go together, NOT_SUPPORTED for what the
// emulation does not know.
cublasStatus_t read_product(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                            cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                            cublasLtMatrixLayout_t d, LtProduct& product);

// How a product is computed.
struct LtPlan {
    LtAlgorithm algorithm;
    int terms = 0;              // of the k of a sum, those that are added
    int chunk = 0;              // of them, one after the other; 0: all at once
    std::size_t alignment = 1;  // bytes, of A, B and D and of their leading dimensions
    std::size_t workspace = 0;  // bytes
    bool fuses_epilogue = false;
};

// The plan of an algorithm, or of one without its split, for a product; false if the one is not for
// the other.
bool plan_of(const LtProduct& product, const LtAlgorithm& algorithm, LtPlan& plan);

struct LtOperands {
    const void* a = nullptr;
    const void* b = nullptr;
    const void* c = nullptr;
    void* d = nullptr;
    float alpha = 1;
    float beta = 0;
    void* workspace = nullptr;
};

// Refuses operands that are not where and how the plan needs them.
cublasStatus_t check_call(const LtProduct& product, const LtPlan& plan, const LtOperands& operands,
                          std::size_t workspace_bytes);

// Puts the product's operations on the stream: the product, with a split sum over k and its
// workspace a second one that adds the parts, and one more for an epilogue that is not fused.
void enqueue_product(cudaStream_t stream, const LtProduct& product, const LtPlan& plan,
                     const LtOperands& operands);

// Says why, and returns the status.
cublasStatus_t refuse_lt(cublasStatus_t status, const std::string& message);

// As call() of the runtime.
template <class Body>
cublasStatus_t call_lt(const char* name, Body body, WhenBroken when_broken = WhenBroken::refuse) {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    if (const auto fault = injected_fault(name)) return static_cast<cublasStatus_t>(*fault);
    if (when_broken == WhenBroken::refuse && device.broken != cudaSuccess) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    return body();
}

// Whether the handle was created and not yet destroyed.
bool is_live(cublasLtHandle_t handle);

}  // namespace emulation
