// From one storage of real numbers to another.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/reals.h"

namespace vae::kernels {

// Computes  rounded[i] = values[i] in bf16, to nearest, ties to even
// Shapes    values[size], rounded[size]; any size, of a whole arena with its padding as well
// Writes    overwrites rounded, which must not overlap values
// Numerics  relative error at most 2^-8; what is beyond the largest bf16 is infinite, NaN stays NaN
// Cost      6 bytes an element; bound by memory bandwidth
// Launch    blocks of 256 threads, 8 elements a thread, by fours where both arrays are aligned to 4
//           elements
void round_to_bf16(const float* values, std::size_t size, Bf16* rounded, cudaStream_t stream);

}  // namespace vae::kernels
