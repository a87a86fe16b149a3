// TF32 and bfloat16 as bits, as the device and cuBLASLt make and read them.
#pragma once

#include <bit>
#include <cstdint>

namespace emulation {

// What a float has more than the 10 bits of mantissa of TF32.
inline constexpr std::uint32_t kBeyondTf32 = (1u << 13) - 1;
inline constexpr std::uint32_t kInfinity = 0x7f800000;
inline constexpr std::uint32_t kQuietNan = 0x7fc00000;

// Toward zero, as tensor cores read a float. A NaN stays one, whichever bits it has.
inline float cut_to_tf32(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t kept = value != value ? bits | kQuietNan : bits;
    return std::bit_cast<float>(kept & ~kBeyondTf32);
}

// To nearest, ties away from zero, as the instruction cvt.rna.tf32.f32.
inline float round_to_tf32(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & kInfinity) == kInfinity) return cut_to_tf32(value);
    return std::bit_cast<float>((bits + (kBeyondTf32 + 1) / 2) & ~kBeyondTf32);
}

inline float from_bf16(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// To nearest, ties to even.
inline std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value) return 0x7fff;
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace emulation
