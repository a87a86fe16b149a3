// The part of cuBLAS that is emulated: FP32 matrix products, computed by OpenBLAS on one thread
// when the stream's turn comes.
#include <cblas.h>
#include <cublas_v2.h>
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime.h"

struct cublasContext {
    cudaStream_t stream = nullptr;
    cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
    cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
    bool has_own_workspace = true;  // and none of the caller's
};

namespace emulation {
namespace {

constexpr int kVersion = CUBLAS_VERSION;
constexpr std::size_t kWorkspaceAlignment = 256;

std::vector<cublasHandle_t>& handles() {
    static std::vector<cublasHandle_t> instance;
    return instance;
}

// As call() of the runtime, for functions of cuBLAS.
template <class Body>
cublasStatus_t call_cublas(const char* name, Body body,
                           WhenBroken when_broken = WhenBroken::refuse) {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    const auto fault = static_cast<cublasStatus_t>(injected_fault(name));
    if (fault != CUBLAS_STATUS_SUCCESS) return fault;
    if (when_broken == WhenBroken::refuse && device.broken != cudaSuccess) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    return body();
}

template <class Body>
cublasStatus_t call_with(cublasHandle_t handle, const char* name, Body body,
                         WhenBroken when_broken = WhenBroken::refuse) {
    return call_cublas(
        name,
        [&] {
            if (handle == nullptr || !contains(handles(), handle)) {
                return CUBLAS_STATUS_NOT_INITIALIZED;
            }
            return body();
        },
        when_broken);
}

cublasStatus_t refuse_cublas(cublasStatus_t status, const std::string& message) {
    refuse(cudaSuccess, message);
    return status;
}

// C = alpha·op(A)·op(B) + beta·C, column-major, `batch` times.
struct Product {
    cublasOperation_t trans_a;
    cublasOperation_t trans_b;
    int m, n, k;
    const float* alpha;
    const float* a;
    int lda;
    long long stride_a;
    const float* b;
    int ldb;
    long long stride_b;
    const float* beta;
    float* c;
    int ldc;
    long long stride_c;
    int batch;
};

bool is_known(cublasOperation_t operation) {
    return operation == CUBLAS_OP_N || operation == CUBLAS_OP_T || operation == CUBLAS_OP_C;
}

int rows_of_a(const Product& p) {
    return p.trans_a == CUBLAS_OP_N ? p.m : p.k;
}
int columns_of_a(const Product& p) {
    return p.trans_a == CUBLAS_OP_N ? p.k : p.m;
}
int rows_of_b(const Product& p) {
    return p.trans_b == CUBLAS_OP_N ? p.k : p.n;
}
int columns_of_b(const Product& p) {
    return p.trans_b == CUBLAS_OP_N ? p.n : p.k;
}

bool is_valid(const Product& p) {
    return is_known(p.trans_a) && is_known(p.trans_b) && p.m >= 0 && p.n >= 0 && p.k >= 0 &&
           p.batch >= 0 && p.lda >= std::max(1, rows_of_a(p)) &&
           p.ldb >= std::max(1, rows_of_b(p)) && p.ldc >= std::max(1, p.m) && p.alpha != nullptr &&
           p.beta != nullptr;
}

// Whether a matrix, and its last in a batch, lie on the device. The product itself is computed by a
// library that no sanitizer sees.
bool is_on_device(const float* matrix, int rows, int columns, int ld, long long stride, int batch) {
    if (rows == 0 || columns == 0) return true;
    const auto last = static_cast<std::size_t>(stride) * static_cast<std::size_t>(batch - 1);
    const std::size_t size = static_cast<std::size_t>(columns - 1) * static_cast<std::size_t>(ld) +
                             static_cast<std::size_t>(rows);
    return stride >= 0 && is_device_range(matrix, (last + size) * sizeof(float));
}

// One thread, for bits depend on how many there are; puts back what others asked for.
class OneThread {
  public:
    OneThread() { openblas_set_num_threads(1); }
    ~OneThread() {
        openblas_set_num_threads(blas_);
        omp_set_num_threads(openmp_);
    }
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;
    OneThread(OneThread&&) = delete;
    OneThread& operator=(OneThread&&) = delete;

  private:
    int openmp_ = omp_get_max_threads();
    int blas_ = openblas_get_num_threads();
};

void run_product(const Product& p, float alpha, float beta) {
    if (!is_on_device(p.a, rows_of_a(p), columns_of_a(p), p.lda, p.stride_a, p.batch) ||
        !is_on_device(p.b, rows_of_b(p), columns_of_b(p), p.ldb, p.stride_b, p.batch) ||
        !is_on_device(p.c, p.m, p.n, p.ldc, p.stride_c, p.batch)) {
        break_device(cudaErrorIllegalAddress,
                     fmt::format("a matrix of a cuBLAS product {}x{}x{} is not inside one device "
                                 "allocation",
                                 p.m, p.n, p.k));
        return;
    }
    const OneThread one_thread;
    const auto blas = [](cublasOperation_t operation) {
        return operation == CUBLAS_OP_N ? CblasNoTrans : CblasTrans;
    };
    for (long long i = 0; i < p.batch; ++i) {
        cblas_sgemm(CblasColMajor, blas(p.trans_a), blas(p.trans_b), p.m, p.n, p.k, alpha,
                    p.a + i * p.stride_a, p.lda, p.b + i * p.stride_b, p.ldb, beta,
                    p.c + i * p.stride_c, p.ldc);
    }
}

cublasStatus_t enqueue_product(const cublasContext& handle, const Product& p) {
    if (!is_valid(p)) return CUBLAS_STATUS_INVALID_VALUE;
    if (handle.math_mode != CUBLAS_DEFAULT_MATH && handle.math_mode != CUBLAS_PEDANTIC_MATH) {
        return refuse_cublas(CUBLAS_STATUS_NOT_SUPPORTED,
                             "cuBLAS: only FP32 arithmetic is emulated");
    }
    if (check_stream(handle.stream, "cuBLAS") != cudaSuccess) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    if (p.m == 0 || p.n == 0 || p.batch == 0) return CUBLAS_STATUS_SUCCESS;
    if (handle.has_own_workspace) ++runtime().products_in_own_workspace;
    if (handle.pointer_mode == CUBLAS_POINTER_MODE_DEVICE) {
        enqueue(handle.stream,
                {cudaGraphNodeTypeKernel, [p] { run_product(p, *p.alpha, *p.beta); }});
    } else {
        enqueue(handle.stream, {cudaGraphNodeTypeKernel, [p, alpha = *p.alpha, beta = *p.beta] {
                                    run_product(p, alpha, beta);
                                }});
    }
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace
}  // namespace emulation

using emulation::call_cublas;
using emulation::call_with;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
    return call_cublas("cublasCreate_v2", [&] {
        if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        // It allocates its workspace.
        if (emulation::check_no_capture("cublasCreate") != cudaSuccess) {
            return CUBLAS_STATUS_ALLOC_FAILED;
        }
        auto context = std::make_unique<cublasContext>();
        emulation::handles().push_back(context.get());
        *handle = context.release();
        ++emulation::runtime().cublas_handles;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    return call_with(
        handle, "cublasDestroy_v2",
        [&] {
            std::erase(emulation::handles(), handle);
            delete handle;
            --emulation::runtime().cublas_handles;
            return CUBLAS_STATUS_SUCCESS;
        },
        emulation::WhenBroken::run_anyway);
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int* version) {
    return call_with(handle, "cublasGetVersion_v2", [&] {
        if (version == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        *version = emulation::kVersion;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    return call_with(handle, "cublasSetStream_v2", [&] {
        if (emulation::check_stream(stream, "cublasSetStream") != cudaSuccess) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        handle->stream = stream;
        handle->has_own_workspace = true;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
    return call_with(handle, "cublasGetStream_v2", [&] {
        if (stream == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        *stream = handle->stream;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, std::size_t size) {
    return call_with(handle, "cublasSetWorkspace_v2", [&] {
        const bool aligned =
            reinterpret_cast<std::uintptr_t>(workspace) % emulation::kWorkspaceAlignment == 0;
        const bool fits = size == 0 || emulation::is_device_range(workspace, size);
        if (!aligned || !fits) return CUBLAS_STATUS_INVALID_VALUE;
        handle->has_own_workspace = false;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    return call_with(handle, "cublasSetMathMode", [&] {
        handle->math_mode = mode;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
    return call_with(handle, "cublasGetMathMode", [&] {
        if (mode == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        *mode = handle->math_mode;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
    return call_with(handle, "cublasSetPointerMode_v2", [&] {
        handle->pointer_mode = mode;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
    return call_with(handle, "cublasGetPointerMode_v2", [&] {
        if (mode == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        *mode = handle->pointer_mode;
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t transa,
                              cublasOperation_t transb, int m, int n, int k, const float* alpha,
                              const float* a, int lda, const float* b, int ldb, const float* beta,
                              float* c, int ldc) {
    return call_with(handle, "cublasSgemm_v2", [&] {
        return emulation::enqueue_product(
            *handle, {transa, transb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1});
    });
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa,
                                         cublasOperation_t transb, int m, int n, int k,
                                         const float* alpha, const float* a, int lda,
                                         long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int batch) {
    return call_with(handle, "cublasSgemmStridedBatched", [&] {
        return emulation::enqueue_product(
            *handle, {transa, transb, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c,
                      ldc, stride_c, batch});
    });
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void* alpha,
                            const void* a, cudaDataType a_type, int lda, const void* b,
                            cudaDataType b_type, int ldb, const void* beta, void* c,
                            cudaDataType c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
    return call_with(handle, "cublasGemmEx", [&] {
        const bool is_fp32 =
            a_type == CUDA_R_32F && b_type == CUDA_R_32F && c_type == CUDA_R_32F &&
            (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC);
        if (!is_fp32) {
            return emulation::refuse_cublas(CUBLAS_STATUS_NOT_SUPPORTED,
                                            "cublasGemmEx: only FP32 is emulated");
        }
        return emulation::enqueue_product(
            *handle, {transa, transb, m, n, k, static_cast<const float*>(alpha),
                      static_cast<const float*>(a), lda, 0, static_cast<const float*>(b), ldb, 0,
                      static_cast<const float*>(beta), static_cast<float*>(c), ldc, 0, 1});
    });
}

const char* cublasGetStatusName(cublasStatus_t status) {
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

const char* cublasGetStatusString(cublasStatus_t status) {
    return cublasGetStatusName(status);
}

}  // extern "C"
