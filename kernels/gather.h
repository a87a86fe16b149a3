// From examples on the device, all of them or those of a while, to a batch x[rows, cols].
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/noise.h"
#include "kernels/reals.h"

namespace vae::kernels {

// As they are, bytes as shares of 255; as they are; 1 with the probability that grey says, else 0.
enum class Pixels { grey, counts, binary };

// Computes  x[r, c] = data[index[r], c] (bytes divided by 255, correctly rounded, unless counts);
//           for binary x[r, c] = u <= that ? 1 : 0, with u the uniform in (0,1] of element c of
//           example first_index + number[r] in the noise stream, so that 0 is never drawn as 1, and
//           1 always; number null: index, where examples lie at their numbers
// Shapes    data[·, cols], index[rows], number[rows] or null (device), x[rows, cols];
//           rounded_x[rows, cols] or null; any rows, cols >= 0. Every index must lie in data: it is
//           not checked.
// Writes    overwrites x, and rounded_x with x in bf16; nothing may overlap
// Numerics  exact: the same bits as host/noise.h gives. NaN in data gives NaN.
// Cost      5 (bytes) or 8 (floats) bytes an element, 2 more for rounded_x; bound by memory
//           bandwidth. Only binary reads number, a word a thread. Binary adds about 25 instructions
//           an element if cols % 4 is 0: four elements share ten rounds of Philox. Other widths
//           draw for each element anew, 100 instructions, bound by those.
// Launch    tiles, see kernels/tile.cuh
void gather(const std::uint8_t* data, const std::uint32_t* index, const std::uint32_t* number,
            int rows, int cols, Pixels pixels, const NoiseStream& noise, std::uint32_t first_index,
            float* x, Bf16* rounded_x, cudaStream_t stream);
void gather(const float* data, const std::uint32_t* index, const std::uint32_t* number, int rows,
            int cols, Pixels pixels, const NoiseStream& noise, std::uint32_t first_index, float* x,
            Bf16* rounded_x, cudaStream_t stream);

}  // namespace vae::kernels
