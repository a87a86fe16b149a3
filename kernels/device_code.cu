#include "kernels/device_code.h"

#include "kernels/launch.h"

namespace vae::kernels {
namespace {

// Never launched: it stands for all kernels, which are compiled for the same architectures.
__global__ void probe_kernel() {}

}  // namespace

cudaError_t code_for_current_device() {
    cudaFuncAttributes attributes = {};
    const cudaError_t status =
        cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel));
    if (status != cudaSuccess) (void)cudaGetLastError();
    return status;
}

int compiled_architecture() {
    cudaFuncAttributes attributes = {};
    cuda_check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel)),
               "cudaFuncGetAttributes");
    return attributes.ptxVersion;
}

bool has_early_starts() {
    constexpr int kFirst = 90;
    return compiled_architecture() >= kFirst;
}

}  // namespace vae::kernels
