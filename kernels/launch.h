// How every kernel starts, and how a CUDA status becomes an exception.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/launch_observer.h"

namespace vae::kernels {

// A CUDA runtime call that failed. The message names the call and the status.
class CudaError : public std::runtime_error {
  public:
    CudaError(cudaError_t status, const char* what)
        : std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status) + " (" +
                             cudaGetErrorName(status) + ")"),
          status_(status) {}
    cudaError_t status() const { return status_; }

  private:
    cudaError_t status_;
};

// Throws CudaError unless status is cudaSuccess. `what` names the call for the message.
inline void cuda_check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        (void)cudaGetLastError();  // a failed launch must not surface again in a later call
        throw CudaError(status, what);
    }
}

struct LaunchShape {
    dim3 grid;
    dim3 block;
    std::size_t shared_bytes = 0;  // dynamic
    // The kernel calls wait_for_previous_kernel (kernels/programmatic.cuh). Behind a kernel that
    // lets the next one start it may then begin before that one is done; behind all else as any
    // other.
    bool starts_early = false;
};

// Whether the current device starts kernels early, and they were compiled to wait then. Throws
// CudaError. Defined in kernels/device_code.cu.
bool has_early_starts();

// Launches kernel(args...) on stream. Parameter types come from the kernel, so an argument that
// does not convert does not compile. Throws CudaError naming `what` when the launch fails.
template <class... Parameters>
void launch(const char* what, void (*kernel)(Parameters...), const LaunchShape& shape,
            cudaStream_t stream, std::type_identity_t<Parameters>... args) {
    cudaLaunchConfig_t config = {};
    config.gridDim = shape.grid;
    config.blockDim = shape.block;
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = stream;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    // Who measures kernels puts an event between them.
    if (shape.starts_early && launch_observer() == nullptr && has_early_starts()) {
        config.attrs = &early;
        config.numAttrs = 1;
    }
    observed(what, stream, [&] { cuda_check(cudaLaunchKernelEx(&config, kernel, args...), what); });
}

}  // namespace vae::kernels
