// Memory of which every byte is 0xff, so that floats in it are NaN until they are written.
#pragma once

#include <cstddef>

namespace emulation {

// Aligned to 256 bytes, as cudaMalloc promises; null when there is no memory. A large block shares
// its pages with all others until they are written: a workspace that nothing touches costs nothing.
// AddressSanitizer knows where the block begins and ends. size > 0.
void* allocate_poisoned(std::size_t size);

// Of the same size.
void release_poisoned(void* memory, std::size_t size);

}  // namespace emulation
