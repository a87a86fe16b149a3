// How much memory, for people.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>

namespace vae {

// "37.2 MiB", "1.5 GiB".
inline std::string memory_text(std::size_t bytes) {
    constexpr double kMiB = 1048576.0;
    const double size = static_cast<double>(bytes) / kMiB;
    return size < 1024 ? fmt::format("{:.1f} MiB", size) : fmt::format("{:.1f} GiB", size / 1024);
}

}  // namespace vae
