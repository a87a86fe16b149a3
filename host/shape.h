// Shapes as files state them: numbers not to be trusted.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include <fmt/format.h>

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

// "(2, 3)"
inline std::string format_shape(std::span<const std::size_t> shape) {
    std::string text;
    for (const std::size_t extent : shape) {
        text += fmt::format("{}{}", text.empty() ? "" : ", ", extent);
    }
    return "(" + text + ")";
}

}  // namespace vae
