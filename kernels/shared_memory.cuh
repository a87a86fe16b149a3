// Dynamic shared memory behind a function: `extern __shared__` of one name cannot have two types in
// one translation unit, and templates need it with several.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// The block's dynamic shared memory, aligned to 16 bytes. Every call gives the same address.
template <class T>
__device__ inline T* dynamic_shared() {
    extern __shared__ uint4 block_memory[];
    return reinterpret_cast<T*>(block_memory);
}

}  // namespace vae::kernels
