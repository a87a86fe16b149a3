// A guard before the PNG decoder.
#pragma once

#include <cstdint>
#include <span>

namespace vae {

// What is wrong with the chunks of a PNG file, or nullptr: each must lie within the file and carry
// the CRC of its bytes, and the last one is IEND (PNG, third edition, 5.3). stb_image looks at no
// CRC, and would decode damaged pixels. What follows IEND is not looked at.
const char* png_damage(std::span<const std::uint8_t> file);

// Whether a file starts as every PNG file does.
bool is_png(std::span<const std::uint8_t> file);

}  // namespace vae
