#include "host/gpu/matmul.h"

#include <fmt/format.h>

#include "host/error.h"

namespace vae::gpu {
namespace {

// What NVIDIA recommends for Hopper; older devices use less of it.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

void cublas_check(cublasStatus_t status, const char* what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw RunError(
        fmt::format("{}: {} ({})", what, cublasGetStatusString(status), static_cast<int>(status)));
}

}  // namespace

MatmulLane::MatmulLane(const Stream& on)
    : stream(on), workspace(kWorkspaceBytes, "a cuBLAS workspace") {}

Matmul::Matmul() {
    cublas_check(cublasCreate(&handle_), "cublasCreate");
}

Matmul::~Matmul() {
    (void)cublasDestroy(handle_);
}

void Matmul::use(const MatmulLane& lane) const {
    cublas_check(cublasSetStream(handle_, lane.stream.get()), "cublasSetStream");
    // After the stream: setting a stream puts the default workspace back.
    cublas_check(cublasSetWorkspace(handle_, const_cast<unsigned char*>(lane.workspace.data()),
                                    lane.workspace.size()),
                 "cublasSetWorkspace");
}

// cuBLAS is column-major: a row-major [a, b] matrix is its [b, a] matrix, so every product below is
// the transpose of the one in the header.

void Matmul::forward(const MatmulLane& lane, const float* x, const float* w, int rows, int in,
                     int out, float* y) const {
    use(lane);
    const float one = 1;
    const float zero = 0;
    cublas_check(cublasSgemm(handle_, CUBLAS_OP_T, CUBLAS_OP_N, out, rows, in, &one, w, in, x, in,
                             &zero, y, out),
                 "cublasSgemm (forward)");
}

void Matmul::backward_input(const MatmulLane& lane, const float* d_y, const float* w, int rows,
                            int in, int out, float* d_x) const {
    use(lane);
    const float one = 1;
    const float zero = 0;
    cublas_check(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, in, rows, out, &one, w, in, d_y,
                             out, &zero, d_x, in),
                 "cublasSgemm (backward, input)");
}

void Matmul::backward_weight(const MatmulLane& lane, const float* d_y, const float* x, int rows,
                             int in, int out, float* d_w) const {
    use(lane);
    const float one = 1;
    const float zero = 0;
    cublas_check(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_T, in, out, rows, &one, x, in, d_y,
                             out, &zero, d_w, in),
                 "cublasSgemm (backward, weight)");
}

}  // namespace vae::gpu
