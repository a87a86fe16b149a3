#include "host/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <charconv>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "host/error.h"
#include "host/files.h"
#include "host/shape.h"

namespace vae {
namespace {

static_assert(std::endian::native == std::endian::little, "values are copied as they are");
static_assert(std::numeric_limits<float>::is_iec559);

constexpr std::string_view kMagic = "\x93NUMPY";

struct Header {
    std::string type;
    bool fortran_order = false;
    std::vector<std::size_t> shape;
};

// Reads the header, a Python dictionary of exactly three keys, in any order:
// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
  public:
    HeaderParser(std::string_view text, const std::string& name) : rest_(text), name_(name) {}

    Header parse() {
        Header header;
        std::array<bool, 3> seen = {};
        expect('{');
        while (!accept('}')) {
            const std::string key = parse_string();
            expect(':');
            if (key == "descr" && !std::exchange(seen[0], true)) {
                header.type = parse_type();
            } else if (key == "fortran_order" && !std::exchange(seen[1], true)) {
                header.fortran_order = parse_bool();
            } else if (key == "shape" && !std::exchange(seen[2], true)) {
                header.shape = parse_shape();
            } else {
                fail();
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        skip_space();
        if (!rest_.empty() || !seen[0] || !seen[1] || !seen[2]) fail();
        return header;
    }

  private:
    [[noreturn]] void fail() const {
        throw InputError(fmt::format(
            "{}: the .npy header is malformed: save the array again with numpy.save", name_));
    }

    void skip_space() {
        while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front()))) {
            rest_.remove_prefix(1);
        }
    }

    bool accept(char wanted) {
        skip_space();
        if (rest_.empty() || rest_.front() != wanted) return false;
        rest_.remove_prefix(1);
        return true;
    }

    bool accept(std::string_view word) {
        skip_space();
        if (!rest_.starts_with(word)) return false;
        rest_.remove_prefix(word.size());
        return true;
    }

    void expect(char wanted) {
        if (!accept(wanted)) fail();
    }

    std::string parse_string() {
        const char quote = accept('"') ? '"' : '\'';
        if (quote == '\'') expect(quote);
        const std::size_t end = rest_.find(quote);
        if (end == std::string_view::npos) fail();
        std::string text(rest_.substr(0, end));
        rest_.remove_prefix(end + 1);
        return text;
    }

    std::string parse_type() {
        skip_space();
        if (rest_.starts_with('[')) {
            throw InputError(fmt::format(
                "{}: it holds records with named fields: save one field as uint8 or float32",
                name_));
        }
        return parse_string();
    }

    bool parse_bool() {
        if (accept("True")) return true;
        if (!accept("False")) fail();
        return false;
    }

    std::vector<std::size_t> parse_shape() {
        std::vector<std::size_t> shape;
        expect('(');
        while (!accept(')')) {
            skip_space();
            std::size_t extent = 0;
            const auto [end, error] =
                std::from_chars(rest_.data(), rest_.data() + rest_.size(), extent);
            if (error != std::errc()) fail();
            rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
            shape.push_back(extent);
            if (!accept(',')) {
                expect(')');
                break;
            }
        }
        return shape;
    }

    std::string_view rest_;
    const std::string& name_;
};

// Printable and short, whatever the file says.
std::string shown(const std::string& type) {
    const bool plain = type.size() <= 16 && std::all_of(type.begin(), type.end(), [](char c) {
                           return std::isgraph(static_cast<unsigned char>(c));
                       });
    return plain ? "'" + type + "'" : "an unknown type";
}

// What an .npy file holds.
struct Contents {
    std::vector<std::size_t> shape;
    bool is_bytes = false;               // else floats
    std::span<const std::uint8_t> data;  // of the values, exactly
};

// Throws InputError unless the data are as many bytes as the shape needs.
void check_size(const Contents& contents, const std::string& name) {
    const auto count = element_count(contents.shape);
    const std::size_t each = contents.is_bytes ? 1 : sizeof(float);
    const std::size_t present = contents.data.size();
    std::size_t bytes = 0;
    if (!count || __builtin_mul_overflow(*count, each, &bytes) || bytes > present) {
        throw InputError(
            fmt::format("{}: the file is too short for its shape {}: it holds {} bytes of data; "
                        "save or copy it again",
                        name, to_text(contents.shape), present));
    }
    if (bytes < present) {
        throw InputError(
            fmt::format("{}: {} bytes follow the array of shape {}: save or copy the file again",
                        name, present - bytes, to_text(contents.shape)));
    }
}

Contents find_contents(std::span<const std::uint8_t> file, const std::string& name) {
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    if (!text.starts_with(kMagic)) {
        throw InputError(fmt::format("{}: it is not an .npy file: save it with numpy.save", name));
    }
    const auto too_short = [&name] {
        throw InputError(
            fmt::format("{}: the file ends within its header: save or copy it again", name));
    };
    if (file.size() < 8) too_short();
    const int major = file[6];
    const int minor = file[7];
    if (major < 1 || major > 3 || minor != 0) {
        throw InputError(fmt::format("{}: .npy version {}.{} is not known (1.0, 2.0 and 3.0 are)",
                                     name, major, minor));
    }
    const std::size_t length_bytes = major == 1 ? 2 : 4;
    const std::size_t header_begin = 8 + length_bytes;
    if (file.size() < header_begin) too_short();
    std::size_t length = 0;
    for (std::size_t i = 0; i < length_bytes; ++i) length |= std::size_t{file[8 + i]} << (8 * i);
    if (file.size() - header_begin < length) too_short();

    const Header header = HeaderParser(text.substr(header_begin, length), name).parse();
    const std::span<const std::uint8_t> data = file.subspan(header_begin + length);
    const bool is_byte = header.type == "|u1" || header.type == "<u1" || header.type == ">u1";
    if (!is_byte && header.type != "<f4") {
        throw InputError(
            fmt::format("{}: its type is {}, and uint8 ('|u1') and float32 ('<f4') "
                        "are read: convert it with a.astype('float32')",
                        name, shown(header.type)));
    }
    if (header.fortran_order && header.shape.size() > 1) {
        throw InputError(
            fmt::format("{}: it is in Fortran order: convert it with "
                        "numpy.save(file, numpy.ascontiguousarray(a))",
                        name));
    }
    Contents contents{header.shape, is_byte, data};
    check_size(contents, name);
    return contents;
}

template <class T>
std::vector<T> copy_values(std::span<const std::uint8_t> data) {
    std::vector<T> values(data.size() / sizeof(T));
    if (!data.empty()) std::memcpy(values.data(), data.data(), data.size());
    return values;
}

}  // namespace

void write_npy(const std::filesystem::path& path, std::span<const float> values,
               std::span<const std::size_t> shape) {
    if (element_count(shape) != values.size()) {
        throw std::invalid_argument(
            fmt::format("write_npy: shape {} and {} values", to_text(shape), values.size()));
    }
    std::string extents;
    for (const std::size_t extent : shape) extents += fmt::format("{}, ", extent);
    if (shape.size() > 1) extents.resize(extents.size() - 2);
    if (shape.size() == 1) extents.pop_back();  // "(3,)"
    std::string header =
        fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", extents);
    constexpr std::size_t kFixed = kMagic.size() + 4;  // before the header: version, length
    constexpr std::size_t kAlignment = 64;             // of the data; asked for by the format
    const std::size_t total =
        (kFixed + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
    header.append(total - kFixed - header.size() - 1, ' ');
    header += '\n';
    std::string start(kMagic);
    start += {'\x01', '\x00', static_cast<char>(header.size() & 0xff),
              static_cast<char>(header.size() >> 8)};
    start += header;
    const std::array parts = {std::as_bytes(std::span(std::as_const(start))),
                              std::as_bytes(values)};
    write_file_atomically(path, parts);
}

NpyArray read_npy(const std::filesystem::path& path) {
    const std::string file = read_file(path);
    return parse_npy(std::span(reinterpret_cast<const std::uint8_t*>(file.data()), file.size()),
                     path.string());
}

NpyArray parse_npy(std::span<const std::uint8_t> file, const std::string& name) {
    const Contents found = find_contents(file, name);
    if (found.is_bytes) return {found.shape, copy_values<std::uint8_t>(found.data)};
    return {found.shape, copy_values<float>(found.data)};
}

NpyView view_npy(const ByteValues& file, const std::string& name) {
    const Contents found = find_contents(file, name);
    const auto first = static_cast<std::size_t>(found.data.data() - file.data());
    const ByteValues bytes = file.part(first, found.data.size());
    if (found.is_bytes) return {found.shape, bytes};
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) == 0;
    if (!is_aligned) return {found.shape, FloatValues(copy_values<float>(found.data))};
    return {found.shape, bytes.as<float>()};
}

}  // namespace vae
