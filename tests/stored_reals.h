// Arrays of kernels/reals.h for tests: stored either way, seen as floats. Rounding to bf16 is done
// here by its definition, apart from CUDA's.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/reals.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {

using kernels::Bf16;
using kernels::Storage;

inline constexpr Storage kStorages[] = {Storage::fp32, Storage::bf16};
// bf16 has 8 significant bits: neighbours above 1 are 2^-7 apart, and rounding to nearest is wrong
// by at most half of that, relative to a value that is at least 1.
inline constexpr double kBf16Rounding = 0x1p-8;

// The upper half of a float, rounded to nearest, ties to even.
inline Bf16 to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return std::bit_cast<Bf16>(std::uint16_t{0x7FFF});
    const std::uint32_t odd = bits >> 16 & 1;
    return std::bit_cast<Bf16>(static_cast<std::uint16_t>((bits + 0x7FFF + odd) >> 16));
}

inline float from_bf16(Bf16 value) {
    return std::bit_cast<float>(std::uint32_t{std::bit_cast<std::uint16_t>(value)} << 16);
}

inline std::vector<Bf16> to_bf16(const std::vector<float>& values) {
    std::vector<Bf16> result;
    result.reserve(values.size());
    for (const float value : values) result.push_back(to_bf16(value));
    return result;
}

inline std::vector<float> from_bf16(const std::vector<Bf16>& values) {
    std::vector<float> result;
    result.reserve(values.size());
    for (const Bf16 value : values) result.push_back(from_bf16(value));
    return result;
}

// Values that are stored exactly.
inline std::vector<float> stored(const std::vector<float>& values, Storage storage) {
    return storage == Storage::fp32 ? values : from_bf16(to_bf16(values));
}

// A copy in bf16 is the array, rounded: the same bits, but for NaN, whose kind is left open.
inline void expect_rounded(const std::vector<Bf16>& copy, const std::vector<float>& of,
                           const char* name) {
    ASSERT_EQ(copy.size(), of.size()) << name;
    for (std::size_t i = 0; i < of.size(); ++i) {
        const float want = from_bf16(to_bf16(of[i]));
        const float got = from_bf16(copy[i]);
        ASSERT_TRUE(std::isnan(want)
                        ? std::isnan(got)
                        : std::bit_cast<std::uint32_t>(got) == std::bit_cast<std::uint32_t>(want))
            << name << "[" << i << "] is " << got << ", not " << want;
    }
}

// How far what is stored may be from the value.
inline Bound stored(const Bound& bound, Storage storage) {
    if (storage == Storage::fp32) return bound;
    const double rounding = kBf16Rounding * (std::abs(bound.value) + bound.tolerance);
    return {bound.value, bound.tolerance + rounding};
}

inline std::vector<Bound> stored(std::vector<Bound> bounds, Storage storage) {
    for (Bound& bound : bounds) bound = stored(bound, storage);
    return bounds;
}

// A DeviceArray of either kind.
class StoredArray {
  public:
    StoredArray(const TestStream& stream, Storage storage, const std::vector<float>& values,
                std::size_t shift = 0) {
        if (storage == Storage::fp32) {
            floats_.emplace(stream, values, shift);
        } else {
            bf16_.emplace(stream, to_bf16(values), shift);
        }
    }
    StoredArray(const TestStream& stream, Storage storage, std::size_t size,
                std::size_t shift = 0) {
        if (storage == Storage::fp32) {
            floats_.emplace(stream, size, shift);
        } else {
            bf16_.emplace(stream, size, shift);
        }
    }

    kernels::Reals get() {
        return floats_ ? kernels::Reals(floats_->data()) : kernels::Reals(bf16_->data());
    }
    std::vector<float> download() {
        return floats_ ? floats_->download() : from_bf16(bf16_->download());
    }

  private:
    std::optional<DeviceArray<float>> floats_;
    std::optional<DeviceArray<Bf16>> bf16_;
};

}  // namespace vae::test
