// Found before the header of this name in kernels/, and used in its place: a host's addresses have
// 64 bits, and it has no such instruction.
#pragma once

#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace vae::kernels {

using SharedAddress = std::uintptr_t;

inline SharedAddress shared_address(const void* in_shared_memory) {
    return reinterpret_cast<SharedAddress>(in_shared_memory);
}

inline void copy_16_async(SharedAddress to, const void* from, bool is_there,
                          emulation::SourceLine where = emulation::SourceLine::here()) {
    constexpr std::size_t kBytes = 16;
    // An address that is not read may be any.
    emulation::copy_async(
        {reinterpret_cast<void*>(to), is_there ? from : nullptr, kBytes, is_there ? 0 : kBytes},
        where);
}

}  // namespace vae::kernels
