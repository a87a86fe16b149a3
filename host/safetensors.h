// The safetensors container: https://github.com/huggingface/safetensors#format. Eight bytes of
// header length, a JSON header, then the tensors' bytes, little-endian, row-major, without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace vae {

// A tensor to write; the values stay the caller's. float is stored as F32, double as F64.
struct SafeTensor {
    std::string name;
    std::vector<std::size_t> shape;  // {} is a scalar: one value
    std::variant<std::span<const float>, std::span<const double>> values;
};

// Writes the file atomically (RunError on failure). Every value is aligned to its size.
// std::invalid_argument when a name comes twice or is "__metadata__", or a shape does not hold its
// values; InputError when a name or the metadata is not UTF-8.
void write_safetensors(const std::filesystem::path& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

// A tensor read back: U8, F32 or F64 as stored.
struct LoadedTensor {
    std::vector<std::size_t> shape;
    std::variant<std::vector<float>, std::vector<double>, std::vector<std::uint8_t>> values;
};

// A whole file, checked when opened: header length and JSON, types, offsets that cover the data
// without holes or overlaps, sizes that match shapes, names that come once. Anything wrong is an
// InputError that names the file and what is wrong.
class SafetensorsFile {
  public:
    explicit SafetensorsFile(const std::filesystem::path& path);

    // In the order of their data.
    std::vector<std::string> names() const;
    bool contains(const std::string& name) const;
    // A copy. InputError when there is no tensor of this name.
    LoadedTensor tensor(const std::string& name) const;
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

  private:
    struct Entry {
        std::string name;
        std::string type;  // "U8", "F32" or "F64"
        std::vector<std::size_t> shape;
        std::size_t begin = 0;  // bytes from the start of the data
        std::size_t end = 0;
    };

    const Entry* find(const std::string& name) const;

    std::string path_;  // for messages
    std::string file_;
    std::size_t data_begin_ = 0;
    std::vector<Entry> entries_;  // sorted by begin
    std::map<std::string, std::string> metadata_;
};

}  // namespace vae
