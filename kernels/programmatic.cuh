// Programmatic dependent launch: a kernel whose blocks start while the one before it still runs.
// Hopper and newer; elsewhere a launch waits as any other.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// In a kernel launched with LaunchShape::starts_early, by every thread, before it reads what the
// kernel before wrote, or writes anything: waits until that kernel is done and all it wrote is
// seen.
__device__ inline void wait_for_previous_kernel() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
}

// In the kernel before it: the next one's blocks may start once every block has said so.
__device__ inline void let_next_kernel_start() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

}  // namespace vae::kernels
