// NumPy's .npy files: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "host/values.h"

namespace vae {

struct NpyArray {
    std::vector<std::size_t> shape;                                      // row-major (C order)
    std::variant<std::vector<std::uint8_t>, std::vector<float>> values;  // product of the shape
};

// Writes float32 in C order, format version 1.0, atomically (RunError on failure). Throws
// std::invalid_argument when the shape does not hold values.size() elements.
void write_npy(const std::filesystem::path& path, std::span<const float> values,
               std::span<const std::size_t> shape);

// Reads uint8 or little-endian float32 in C order, format versions 1.0, 2.0 and 3.0. Anything else
// (other types, Fortran order, a truncated file, trailing bytes, …) is an InputError that names the
// file, what is wrong with it and how to convert it.
NpyArray read_npy(const std::filesystem::path& path);

// The same for a file already in memory; `name` is what errors call it.
NpyArray parse_npy(std::span<const std::uint8_t> file, const std::string& name);

// The same, with the values where they lie in the file; a copy of floats that are not aligned
// there.
struct NpyView {
    std::vector<std::size_t> shape;
    std::variant<ByteValues, FloatValues> values;
};
NpyView view_npy(const ByteValues& file, const std::string& name);

}  // namespace vae
