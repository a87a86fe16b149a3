// The matrix products of a dense layer, in cuBLAS. All matrices are row-major and dense.
#pragma once

#include <cublas_v2.h>

#include "host/gpu/device_array.h"

namespace vae::gpu {

// A cuBLAS handle bound to one stream, with a workspace of its own (so that results do not depend
// on what else runs). FP32 in, FP32 arithmetic, FP32 out: the default math mode, which only
// cuBLAS's own environment variables can relax. Throws RunError when cuBLAS fails.
class Matmul {
  public:
    explicit Matmul(const Stream& stream);
    ~Matmul();
    Matmul(const Matmul&) = delete;
    Matmul& operator=(const Matmul&) = delete;
    Matmul(Matmul&&) = delete;
    Matmul& operator=(Matmul&&) = delete;

    // y[rows, out] = x[rows, in] · w[out, in]ᵀ
    void forward(const float* x, const float* w, int rows, int in, int out, float* y) const;
    // d_x[rows, in] = d_y[rows, out] · w[out, in]
    void backward_input(const float* d_y, const float* w, int rows, int in, int out,
                        float* d_x) const;
    // d_w[out, in] = d_y[rows, out]ᵀ · x[rows, in]
    void backward_weight(const float* d_y, const float* x, int rows, int in, int out,
                         float* d_w) const;

  private:
    DeviceArray<unsigned char> workspace_;
    cublasHandle_t handle_ = nullptr;
};

}  // namespace vae::gpu
