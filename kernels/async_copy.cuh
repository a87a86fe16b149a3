// Copies from global to shared memory that go on beside the thread that starts them, until it waits
// for the group that they are committed to (__pipeline_commit, __pipeline_wait_prior). By an
// address of 32 bits in shared memory and with a number of bytes that need not be known before,
// which CUDA's own __pipeline_memcpy_async has not. For compute capability 8.0 and newer; elsewhere
// they trap.
#pragma once

#include <cuda_pipeline.h>
#include <cuda_runtime.h>

namespace vae::kernels {

using SharedAddress = unsigned;

__device__ inline SharedAddress shared_address(const void* in_shared_memory) {
    return static_cast<SharedAddress>(__cvta_generic_to_shared(in_shared_memory));
}

// 16 bytes, both addresses being multiples of 16; zeros, and nothing is read, unless is_there.
__device__ inline void copy_16_async(SharedAddress to, const void* from, bool is_there) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    __trap();
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(is_there ? 16 : 0));
#endif
}

}  // namespace vae::kernels
