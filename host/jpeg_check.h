// A guard before the JPEG decoder.
#pragma once

#include <cstdint>
#include <span>

namespace vae {

// Whether every Huffman table of a JPEG file has at most the 256 symbols that the format allows
// (ITU-T T.81, B.2.4.2) and lies within its segment. stb_image before release 2.28, which
// distributions still ship, trusts these counts and writes past its tables.
bool jpeg_tables_fit(std::span<const std::uint8_t> file);

}  // namespace vae
