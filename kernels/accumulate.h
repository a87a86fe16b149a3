// Sums of whole arenas: the gradients of a step that is taken in parts.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace vae::kernels {

// Computes  total[i] += part[i]
// Shapes    total[size], part[size]; any size, of a whole arena with its padding as well
// Writes    accumulates in total, which must not overlap part
// Numerics  float, one rounding; NaN in gives NaN out
// Cost      12 bytes and 1 flop an element; bound by memory bandwidth
// Launch    blocks of 256 threads, 8 elements a thread, by fours where both arrays are aligned to
// 16
//           bytes
void accumulate(const float* part, std::size_t size, float* total, cudaStream_t stream);

}  // namespace vae::kernels
