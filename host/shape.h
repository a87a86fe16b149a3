// Shapes as files state them (numbers not to be trusted), and as people read them.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "host/dataset.h"

namespace vae {

// The product of the shape, 1 for {}; nothing when it does not fit.
inline std::optional<std::size_t> element_count(std::span<const std::size_t> shape) {
    for (const std::size_t extent : shape) {
        if (extent == 0) return 0;  // whatever the others are
    }
    std::size_t count = 1;
    for (const std::size_t extent : shape) {
        if (__builtin_mul_overflow(count, extent, &count)) return std::nullopt;
    }
    return count;
}

// "[2, 3]"
inline std::string to_text(std::span<const std::size_t> shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

// "28x28x1": height, width, channels
inline std::string to_text(const ImageShape& shape) {
    return fmt::format("{}x{}x{}", shape.height, shape.width, shape.channels);
}

}  // namespace vae
