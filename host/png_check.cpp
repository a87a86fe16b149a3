#include "host/png_check.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace vae {
namespace {

constexpr std::array<std::uint8_t, 8> kSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

std::uint32_t big_endian(std::span<const std::uint8_t> bytes) {
    std::uint32_t value = 0;
    for (const std::uint8_t byte : bytes) value = value << 8 | byte;
    return value;
}

}  // namespace

bool is_png(std::span<const std::uint8_t> file) {
    return file.size() >= kSignature.size() &&
           std::equal(kSignature.begin(), kSignature.end(), file.begin());
}

const char* png_damage(std::span<const std::uint8_t> file) {
    constexpr std::size_t kFrame = 12;  // length, type and CRC of a chunk: 4 bytes each
    std::span<const std::uint8_t> rest = file.subspan(std::min(kSignature.size(), file.size()));
    while (!rest.empty()) {
        if (rest.size() < kFrame) return "the file ends too early";
        const std::size_t length = big_endian(rest.first(4));
        if (rest.size() - kFrame < length) return "the file ends too early";
        const auto checked = rest.subspan(4, 4 + length);
        const uLong crc = crc32(0, checked.data(), static_cast<uInt>(checked.size()));
        if (crc != big_endian(rest.subspan(8 + length, 4))) return "a checksum is wrong";
        const std::string_view type(reinterpret_cast<const char*>(checked.data()), 4);
        if (type == "IEND") return nullptr;
        rest = rest.subspan(kFrame + length);
    }
    return "the file ends too early";
}

}  // namespace vae
