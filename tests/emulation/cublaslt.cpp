// Handles, descriptors and their attributes of the emulated cuBLASLt.
#include "cublaslt.h"

#include <fmt/format.h>

#include <array>
#include <memory>
#include <vector>

struct cublasLtContext {};

namespace emulation {
namespace {

std::vector<cublasLtHandle_t>& handles() {
    static std::vector<cublasLtHandle_t> instance;
    return instance;
}

// Where an attribute lies in what a descriptor holds.
struct Field {
    int attribute;
    std::size_t offset;
    std::size_t size;
};

constexpr std::array kOperationFields = {
    Field{CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, offsetof(LtOperation, compute), 4},
    Field{CUBLASLT_MATMUL_DESC_SCALE_TYPE, offsetof(LtOperation, scale_type), 4},
    Field{CUBLASLT_MATMUL_DESC_POINTER_MODE, offsetof(LtOperation, pointer_mode), 4},
    Field{CUBLASLT_MATMUL_DESC_TRANSA, offsetof(LtOperation, trans_a), 4},
    Field{CUBLASLT_MATMUL_DESC_TRANSB, offsetof(LtOperation, trans_b), 4},
    Field{CUBLASLT_MATMUL_DESC_EPILOGUE, offsetof(LtOperation, epilogue), 4},
    Field{CUBLASLT_MATMUL_DESC_BIAS_POINTER, offsetof(LtOperation, bias), 8},
    Field{CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, offsetof(LtOperation, bias_type), 4},
    Field{CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, offsetof(LtOperation, aux), 8},
    Field{CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, offsetof(LtOperation, aux_ld), 8},
};

constexpr std::array kLayoutFields = {
    Field{CUBLASLT_MATRIX_LAYOUT_TYPE, offsetof(LtLayout, type), 4},
    Field{CUBLASLT_MATRIX_LAYOUT_ORDER, offsetof(LtLayout, order), 4},
    Field{CUBLASLT_MATRIX_LAYOUT_ROWS, offsetof(LtLayout, rows), 8},
    Field{CUBLASLT_MATRIX_LAYOUT_COLS, offsetof(LtLayout, columns), 8},
    Field{CUBLASLT_MATRIX_LAYOUT_LD, offsetof(LtLayout, ld), 8},
    Field{CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, offsetof(LtLayout, batch), 4},
};

constexpr std::array kPreferenceFields = {
    Field{CUBLASLT_MATMUL_PREF_SEARCH_MODE, offsetof(LtPreference, search_mode), 4},
    Field{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, offsetof(LtPreference, workspace), 8},
    Field{CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, offsetof(LtPreference, reductions), 4},
    Field{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, offsetof(LtPreference, alignment_a), 4},
    Field{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, offsetof(LtPreference, alignment_b), 4},
    Field{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, offsetof(LtPreference, alignment_c), 4},
    Field{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, offsetof(LtPreference, alignment_d), 4},
};

constexpr std::array kAlgorithmFields = {
    Field{CUBLASLT_ALGO_CONFIG_ID, offsetof(LtAlgorithm, id), 4},
    Field{CUBLASLT_ALGO_CONFIG_TILE_ID, offsetof(LtAlgorithm, tile), 4},
    Field{CUBLASLT_ALGO_CONFIG_STAGES_ID, offsetof(LtAlgorithm, stages), 4},
    Field{CUBLASLT_ALGO_CONFIG_SPLITK_NUM, offsetof(LtAlgorithm, splits), 4},
    Field{CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, offsetof(LtAlgorithm, reduction), 4},
};

template <std::size_t N>
const Field* find_field(const std::array<Field, N>& fields, int attribute) {
    for (const Field& field : fields) {
        if (field.attribute == attribute) return &field;
    }
    return nullptr;
}

cublasStatus_t refuse_attribute(const char* who, int attribute) {
    return refuse_lt(CUBLAS_STATUS_NOT_SUPPORTED,
                     fmt::format("{}: attribute {} is not emulated", who, attribute));
}

template <class T, class Opaque, std::size_t N>
cublasStatus_t set_attribute(const char* who, Opaque* opaque, const std::array<Field, N>& fields,
                             int attribute, const void* value, std::size_t size) {
    T held;
    if (!load(opaque, held)) return CUBLAS_STATUS_INVALID_VALUE;
    const Field* const field = find_field(fields, attribute);
    if (field == nullptr) return refuse_attribute(who, attribute);
    if (value == nullptr || size != field->size) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(reinterpret_cast<char*>(opaque->data) + field->offset, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

template <class T, class Opaque, std::size_t N>
cublasStatus_t get_attribute(const char* who, const Opaque* opaque,
                             const std::array<Field, N>& fields, int attribute, void* value,
                             std::size_t size, std::size_t* written) {
    T held;
    if (!load(opaque, held)) return CUBLAS_STATUS_INVALID_VALUE;
    const Field* const field = find_field(fields, attribute);
    if (field == nullptr) return refuse_attribute(who, attribute);
    if (size == 0 ? written == nullptr : value == nullptr || size != field->size) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (size != 0) {
        std::memcpy(value, reinterpret_cast<const char*>(opaque->data) + field->offset, size);
    }
    if (written != nullptr) *written = field->size;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T, class Opaque>
cublasStatus_t initialize(const T& value, Opaque* opaque, std::size_t size) {
    if (opaque == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof *opaque) return CUBLAS_STATUS_ALLOC_FAILED;
    store(value, opaque);
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

bool is_live(cublasLtHandle_t handle) {
    return handle != nullptr && contains(handles(), handle);
}

cublasStatus_t refuse_lt(cublasStatus_t status, const std::string& message) {
    refuse(cudaSuccess, message);
    return status;
}

std::size_t size_of(std::uint32_t type) {
    return type == CUDA_R_16BF ? 2 : 4;
}

}  // namespace emulation

using emulation::call_lt;
using emulation::LtAlgorithm;
using emulation::LtLayout;
using emulation::LtOperation;
using emulation::LtPreference;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    return call_lt("cublasLtCreate", [&] {
        if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        auto context = std::make_unique<cublasLtContext>();
        emulation::handles().push_back(context.get());
        *handle = context.release();
        ++emulation::runtime().cublas_handles;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return call_lt(
        "cublasLtDestroy",
        [&] {
            if (!emulation::is_live(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
            std::erase(emulation::handles(), handle);
            delete handle;
            --emulation::runtime().cublas_handles;
            return CUBLAS_STATUS_SUCCESS;
        },
        emulation::WhenBroken::run_anyway);
}

std::size_t cublasLtGetVersion() {
    return CUBLAS_VERSION;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t operation, std::size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
    return call_lt("cublasLtMatmulDescInit_internal", [&] {
        return emulation::initialize(LtOperation{.compute = compute, .scale_type = scale},
                                     operation, size);
    });
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t size) {
    return call_lt("cublasLtMatmulDescSetAttribute", [&] {
        return emulation::set_attribute<LtOperation>("cublasLtMatmulDescSetAttribute", operation,
                                                     emulation::kOperationFields, attribute, value,
                                                     size);
    });
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, std::size_t size,
                                                 cudaDataType type, std::uint64_t rows,
                                                 std::uint64_t columns, std::int64_t ld) {
    return call_lt("cublasLtMatrixLayoutInit_internal", [&] {
        return emulation::initialize(
            LtLayout{.type = type, .rows = rows, .columns = columns, .ld = ld}, layout, size);
    });
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, std::size_t size) {
    return call_lt("cublasLtMatrixLayoutSetAttribute", [&] {
        return emulation::set_attribute<LtLayout>("cublasLtMatrixLayoutSetAttribute", layout,
                                                  emulation::kLayoutFields, attribute, value, size);
    });
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     std::size_t size) {
    return call_lt("cublasLtMatmulPreferenceInit_internal",
                   [&] { return emulation::initialize(LtPreference(), preference, size); });
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t size) {
    return call_lt("cublasLtMatmulPreferenceSetAttribute", [&] {
        return emulation::set_attribute<LtPreference>("cublasLtMatmulPreferenceSetAttribute",
                                                      preference, emulation::kPreferenceFields,
                                                      attribute, value, size);
    });
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void* value, std::size_t size,
                                                    std::size_t* written) {
    return call_lt("cublasLtMatmulAlgoConfigGetAttribute", [&] {
        return emulation::get_attribute<LtAlgorithm>("cublasLtMatmulAlgoConfigGetAttribute",
                                                     algorithm, emulation::kAlgorithmFields,
                                                     attribute, value, size, written);
    });
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    const void* value, std::size_t size) {
    return call_lt("cublasLtMatmulAlgoConfigSetAttribute", [&] {
        return emulation::set_attribute<LtAlgorithm>("cublasLtMatmulAlgoConfigSetAttribute",
                                                     algorithm, emulation::kAlgorithmFields,
                                                     attribute, value, size);
    });
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS:
            return "CUBLAS_STATUS_SUCCESS";
        case CUBLAS_STATUS_NOT_INITIALIZED:
            return "CUBLAS_STATUS_NOT_INITIALIZED";
        case CUBLAS_STATUS_ALLOC_FAILED:
            return "CUBLAS_STATUS_ALLOC_FAILED";
        case CUBLAS_STATUS_INVALID_VALUE:
            return "CUBLAS_STATUS_INVALID_VALUE";
        case CUBLAS_STATUS_ARCH_MISMATCH:
            return "CUBLAS_STATUS_ARCH_MISMATCH";
        case CUBLAS_STATUS_MAPPING_ERROR:
            return "CUBLAS_STATUS_MAPPING_ERROR";
        case CUBLAS_STATUS_EXECUTION_FAILED:
            return "CUBLAS_STATUS_EXECUTION_FAILED";
        case CUBLAS_STATUS_INTERNAL_ERROR:
            return "CUBLAS_STATUS_INTERNAL_ERROR";
        case CUBLAS_STATUS_NOT_SUPPORTED:
            return "CUBLAS_STATUS_NOT_SUPPORTED";
        case CUBLAS_STATUS_LICENSE_ERROR:
            return "CUBLAS_STATUS_LICENSE_ERROR";
    }
    return "unknown status";
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
    return cublasLtGetStatusName(status);
}

}  // extern "C"
