// From the data set to a batch x[rows, pixels]. T is float or double.
#pragma once

#include <cstdint>
#include <span>

#include "host/dataset.h"
#include "host/noise.h"

namespace vae::cpu {

// Computes  x[r, c] = data[rows[r], c], bytes divided by 255 in T unless they
//           are counts
template <class T>
void gather(const Dataset& data, std::span<const std::uint32_t> rows, T* x);

// Computes  x[r, c] = u <= p ? 1 : 0, with p the pixel in float (bytes divided by 255) and u the
//           uniform in (0, 1] of element c of example first_index + rows[r]; both in float
//           whatever T is, so that every precision sees the same x. A NaN stays a NaN.
// Shapes    uniforms[rows, pixels] is overwritten; stream gives seed, purpose and step
template <class T>
void gather_binary(const Dataset& data, std::span<const std::uint32_t> rows,
                   const NoiseAddress& stream, float* uniforms, T* x);

}  // namespace vae::cpu
