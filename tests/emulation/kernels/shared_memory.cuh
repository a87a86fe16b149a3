// Found before the header of this name in kernels/, and used in its place: a host compiler has no
// `extern __shared__`.
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// The block's dynamic shared memory as an array of T.
template <class T>
T* dynamic_shared() {
    return static_cast<T*>(emulation::dynamic_shared_memory());
}

}  // namespace vae::kernels
