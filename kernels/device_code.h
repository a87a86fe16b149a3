// Whether this build can run on a device at all, and what of it.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// cudaSuccess if the kernels were compiled for the current device, as machine code or as PTX that
// its driver can compile; else why not. Starts the device's context.
cudaError_t code_for_current_device();

// The architecture that the kernels were compiled for which the current device runs: 90 for compute
// capability 9.0. Throws CudaError.
int compiled_architecture();

}  // namespace vae::kernels
