// Found before the header of this name in kernels/, and used in its place: a host has no such
// instructions.
#pragma once

#include <cuda_runtime.h>

#include <bit>

#include "number_formats.h"

namespace vae::kernels {

inline unsigned rounded_to_tf32(float value) {
    return std::bit_cast<unsigned>(emulation::round_to_tf32(value));
}

inline void multiply_tf32(const unsigned (&a)[4], const unsigned (&b)[2], float (&sum)[4],
                          emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::multiply_fragments(emulation::WarpOperation::multiply_tf32, {a, b, sum}, where);
}

inline void multiply_bf16(const unsigned (&a)[4], const unsigned (&b)[2], float (&sum)[4],
                          emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::multiply_fragments(emulation::WarpOperation::multiply_bf16, {a, b, sum}, where);
}

}  // namespace vae::kernels
