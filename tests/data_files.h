// Data files, made byte by byte.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace vae::testing {

// An IDX file; type 0x08 is unsigned bytes.
inline std::string idx(const std::vector<std::uint32_t>& extents, const std::string& data,
                       char type = 0x08) {
    std::string file = {'\0', '\0', type, static_cast<char>(extents.size())};
    for (const std::uint32_t extent : extents) {
        for (int shift = 24; shift >= 0; shift -= 8) file += static_cast<char>(extent >> shift);
    }
    return file + data;
}

inline std::string gzip(const std::string& content) {
    z_stream stream = {};
    if (deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        throw std::runtime_error("deflateInit2 failed");
    }
    std::string packed(deflateBound(&stream, content.size()), '\0');
    std::string input = content;
    stream.next_in = reinterpret_cast<Bytef*>(input.data());
    stream.avail_in = static_cast<uInt>(input.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    const int status = deflate(&stream, Z_FINISH);
    packed.resize(stream.total_out);
    deflateEnd(&stream);
    if (status != Z_STREAM_END) throw std::runtime_error("deflate failed");
    return packed;
}

}  // namespace vae::testing
