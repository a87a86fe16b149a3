// From resident data to a batch x[rows, cols].
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/noise.h"

namespace vae::kernels {

enum class Pixels { grey, binary };  // as they are, or 1 with probability x, else 0

// Computes  x[r, c] = data[index[r], c] (bytes divided by 255, correctly rounded); for binary
//           x[r, c] = u <= that ? 1 : 0, with u the uniform in (0,1] of element c of example
//           first_index + index[r] in the noise stream.
// Shapes    data[·, cols], index[rows] (device), x[rows, cols]; any rows, cols >= 0
void gather(const std::uint8_t* data, const std::uint32_t* index, int rows, int cols, Pixels pixels,
            const NoiseStream& noise, std::uint32_t first_index, float* x, cudaStream_t stream);
void gather(const float* data, const std::uint32_t* index, int rows, int cols, Pixels pixels,
            const NoiseStream& noise, std::uint32_t first_index, float* x, cudaStream_t stream);

}  // namespace vae::kernels
