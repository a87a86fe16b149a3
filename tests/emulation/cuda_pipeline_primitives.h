// Found before the real header of this name, which copies at once unless nvcc compiles for a GPU
// that can do otherwise. When a copy takes place between its call and the wait for it is not
// defined, and a kernel must be right in any case: see emulation::Order.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier)
inline void __pipeline_memcpy_async(void* __restrict__ dst_shared,
                                    const void* __restrict__ src_global, std::size_t size_and_align,
                                    std::size_t zfill = 0,
                                    emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::copy_async({dst_shared, src_global, size_and_align, zfill}, where);
}
inline void __pipeline_commit() {
    emulation::commit_copies();
}
// Of more than 8 the real one leaves 8, too.
inline void __pipeline_wait_prior(std::size_t prior) {
    emulation::wait_for_copies(std::min<std::size_t>(prior, 8));
}
// NOLINTEND(bugprone-reserved-identifier)
