// The matrix products of a dense layer, in cuBLAS. All matrices are row-major and dense.
#pragma once

#include <cublas_v2.h>

#include "host/gpu/device_array.h"

namespace vae::gpu {

// Where products run: a stream, and a workspace that no other stream's products use, so that
// results do not depend on what else runs.
struct MatmulLane {
    // Throws RunError when the device is full. The stream outlives the lane.
    explicit MatmulLane(const Stream& on);

    const Stream& stream;
    DeviceArray<unsigned char> workspace;
};

// A cuBLAS handle. FP32 in, FP32 arithmetic, FP32 out: the default math mode, which only cuBLAS's
// own environment variables can relax. Throws RunError when cuBLAS fails.
class Matmul {
  public:
    Matmul();
    ~Matmul();
    Matmul(const Matmul&) = delete;
    Matmul& operator=(const Matmul&) = delete;
    Matmul(Matmul&&) = delete;
    Matmul& operator=(Matmul&&) = delete;

    // y[rows, out] = x[rows, in] · w[out, in]ᵀ
    void forward(const MatmulLane& lane, const float* x, const float* w, int rows, int in, int out,
                 float* y) const;
    // d_x[rows, in] = d_y[rows, out] · w[out, in]
    void backward_input(const MatmulLane& lane, const float* d_y, const float* w, int rows, int in,
                        int out, float* d_x) const;
    // d_w[out, in] = d_y[rows, out]ᵀ · x[rows, in]
    void backward_weight(const MatmulLane& lane, const float* d_y, const float* x, int rows, int in,
                         int out, float* d_w) const;

  private:
    void use(const MatmulLane& lane) const;

    cublasHandle_t handle_ = nullptr;
};

}  // namespace vae::gpu
