#include "host/jpeg_check.h"

#include <cstddef>

namespace vae {
namespace {

constexpr std::uint8_t kFill = 0xff;
constexpr std::uint8_t kHuffmanTables = 0xc4;
constexpr std::uint8_t kEndOfImage = 0xd9;
constexpr std::size_t kLengths = 16;  // code lengths a table counts its symbols by
constexpr std::size_t kMostSymbols = 256;

// Markers without a segment: a stuffed zero, TEM, restarts, start of image.
bool stands_alone(std::uint8_t marker) {
    return marker == 0x00 || marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8);
}

// The tables of one segment, its length excluded.
bool tables_fit(std::span<const std::uint8_t> segment) {
    while (!segment.empty()) {
        if (segment.size() < 1 + kLengths) return false;
        std::size_t symbols = 0;
        for (std::size_t i = 1; i <= kLengths; ++i) symbols += segment[i];
        if (symbols > kMostSymbols || segment.size() < 1 + kLengths + symbols) return false;
        segment = segment.subspan(1 + kLengths + symbols);
    }
    return true;
}

}  // namespace

bool jpeg_tables_fit(std::span<const std::uint8_t> file) {
    std::size_t at = 0;
    while (at + 1 < file.size()) {
        // Between segments and in compressed data alike, the next marker is the next 0xff that is
        // followed by neither another one nor a stuffed zero.
        const std::uint8_t marker = file[at + 1];
        if (file[at] != kFill || marker == kFill) {
            ++at;
            continue;
        }
        at += 2;
        if (stands_alone(marker)) continue;
        if (marker == kEndOfImage) return true;
        if (file.size() - at < 2) return marker != kHuffmanTables;
        const std::size_t length = std::size_t{file[at]} << 8 | file[at + 1];
        const std::span<const std::uint8_t> rest = file.subspan(at);
        if (marker == kHuffmanTables) {
            if (length < 2 || length > rest.size()) return false;
            if (!tables_fit(rest.subspan(2, length - 2))) return false;
        }
        at += length;
    }
    return true;
}

}  // namespace vae
