#include "host/idx.h"

#include <fmt/format.h>

#include <cstddef>
#include <vector>

#include "host/error.h"
#include "host/examples.h"
#include "host/shape.h"

namespace vae {
namespace {

constexpr std::uint8_t kUnsignedByte = 0x08;

}  // namespace

bool is_idx(std::span<const std::uint8_t> file) {
    // The type code keeps a file that merely starts with zeros from being taken for IDX.
    return file.size() >= 4 && file[0] == 0 && file[1] == 0 && file[2] >= kUnsignedByte &&
           file[2] <= 0x0e;
}

Dataset parse_idx(const ByteValues& file, const std::string& name) {
    if (!is_idx(file)) {
        throw InputError(
            fmt::format("{}: it does not start as an IDX file does (00 00, a type "
                        "code, a rank): it is damaged or something else",
                        name));
    }
    if (file[2] != kUnsignedByte) {
        throw InputError(
            fmt::format("{}: its IDX type code is {:#04x}, and only unsigned bytes "
                        "(0x08) are read: convert it to .npy",
                        name, file[2]));
    }
    const std::size_t rank = file[3];
    if (rank < 2 || rank > 4) {
        throw InputError(
            fmt::format("{}: its IDX rank is {}, and images have 2 to 4 (N,D or N,H,W "
                        "or N,H,W,C){}",
                        name, rank, rank == 1 ? ": it may be a file of labels" : ""));
    }
    const std::size_t header = 4 + 4 * rank;
    if (file.size() < header) {
        throw InputError(fmt::format("{}: the file ends within its header: get it again", name));
    }
    std::vector<std::size_t> extents;
    for (std::size_t at = 4; at < header; at += 4) {
        extents.push_back(std::size_t{file[at]} << 24 | std::size_t{file[at + 1]} << 16 |
                          std::size_t{file[at + 2]} << 8 | std::size_t{file[at + 3]});
    }
    const auto count = element_count(extents);
    const std::size_t present = file.size() - header;
    if (!count || *count > present) {
        throw InputError(
            fmt::format("{}: the file is too short for its shape {}: it holds {} "
                        "bytes of data; get it again",
                        name, to_text(extents), present));
    }
    if (*count < present) {
        throw InputError(fmt::format("{}: {} bytes follow the images of shape {}: get it again",
                                     name, present - *count, to_text(extents)));
    }
    return make_dataset(extents, file.part(header, *count), name);
}

}  // namespace vae
