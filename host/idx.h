// The IDX format of MNIST: two zero bytes, a type code, the rank, then each extent in four bytes,
// big-endian, then the values. http://yann.lecun.com/exdb/mnist/ describes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "host/dataset.h"

namespace vae {

// Whether a file starts as an IDX file does.
bool is_idx(std::span<const std::uint8_t> file);

// The examples of an IDX file of unsigned bytes, (N,D), (N,H,W) or (N,H,W,C). `name` is what errors
// call the file. InputError on any other type or rank, and unless the file has exactly the bytes
// that its extents need. The values stay where they lie in the file.
Dataset parse_idx(const ByteValues& file, const std::string& name);

}  // namespace vae
