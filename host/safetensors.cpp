#include "host/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "host/error.h"
#include "host/files.h"
#include "host/shape.h"

namespace vae {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "values are copied as they are");

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxHeader = 100'000'000;  // as the reference implementation
constexpr const char* kMetadata = "__metadata__";

// A name from a file as one printable, short piece of a message.
std::string shown(const std::string& name) {
    constexpr std::size_t kLongest = 80;
    std::string text =
        json(name.substr(0, kLongest)).dump(-1, ' ', true, json::error_handler_t::replace);
    if (name.size() > kLongest) text += "...";
    return text;
}

std::size_t value_count(const SafeTensor& tensor) {
    return std::visit([](const auto& values) { return values.size(); }, tensor.values);
}

std::span<const std::byte> bytes_of(const SafeTensor& tensor) {
    return std::visit(
        [](const auto& values) { return std::span<const std::byte>(std::as_bytes(values)); },
        tensor.values);
}

bool is_double(const SafeTensor& tensor) {
    return std::holds_alternative<std::span<const double>>(tensor.values);
}

// In the order of their data: doubles first, so that every value is aligned.
std::vector<const SafeTensor*> ordered(const std::vector<SafeTensor>& tensors) {
    std::vector<const SafeTensor*> order;
    std::set<std::string> names = {kMetadata};
    for (const SafeTensor& tensor : tensors) {
        if (!names.insert(tensor.name).second) {
            throw std::invalid_argument("write_safetensors: the name " + tensor.name +
                                        " comes twice or is reserved");
        }
        if (element_count(tensor.shape) != value_count(tensor)) {
            throw std::invalid_argument(
                fmt::format("write_safetensors: {} has shape {} and {} values", tensor.name,
                            to_text(tensor.shape), value_count(tensor)));
        }
        order.push_back(&tensor);
    }
    std::stable_partition(order.begin(), order.end(),
                          [](const SafeTensor* tensor) { return is_double(*tensor); });
    return order;
}

// The length and the JSON, padded so that the data is aligned to 8 bytes.
std::string make_header(const std::vector<const SafeTensor*>& order,
                        const std::map<std::string, std::string>& metadata,
                        const std::filesystem::path& path) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header[kMetadata] = metadata;
    std::size_t offset = 0;
    for (const SafeTensor* tensor : order) {
        const std::size_t end = offset + bytes_of(*tensor).size();
        header[tensor->name] = {{"dtype", is_double(*tensor) ? "F64" : "F32"},
                                {"shape", tensor->shape},
                                {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text;
    try {
        text = header.dump();
    } catch (const json::type_error&) {
        throw InputError(
            fmt::format("cannot write {}: a name or a setting in it is not UTF-8", path.string()));
    }
    text.resize((text.size() + 7) / 8 * 8, ' ');
    if (text.size() > kMaxHeader) {
        throw InputError(
            fmt::format("cannot write {}: its names and settings need {} bytes, more "
                        "than the {} that readers accept",
                        path.string(), text.size(), kMaxHeader));
    }
    const std::uint64_t length = text.size();
    std::string start(kLengthBytes, '\0');
    std::memcpy(start.data(), &length, kLengthBytes);
    return start + text;
}

// Parses the header's JSON, with what the library leaves open: a name that comes twice, and
// nesting deeper than a header has (a hostile one could need any amount of memory).
class HeaderReader {
  public:
    explicit HeaderReader(std::string path) : path_(std::move(path)) {}

    json read(std::string_view text) {
        const auto callback = [this](int depth, json::parse_event_t event, json& parsed) {
            on_event(depth, event, parsed);
            return true;
        };
        try {
            json header = json::parse(text.begin(), text.end(), callback);
            if (!header.is_object()) fail("its header is not a JSON object");
            return header;
        } catch (const json::exception&) {  // its message may quote anything in the file
            fail("its header is not valid JSON");
        }
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw InputError(fmt::format("{}: not a whole safetensors file: {}", path_, what));
    }

  private:
    void on_event(int depth, json::parse_event_t event, const json& parsed) {
        constexpr int kDeepest = 2;  // {"name": {"shape": [
        if (event == json::parse_event_t::object_start) {
            if (depth > kDeepest) fail("its header is nested too deep");
            keys_.emplace_back();
        } else if (event == json::parse_event_t::array_start) {
            if (depth > kDeepest) fail("its header is nested too deep");
        } else if (event == json::parse_event_t::object_end) {
            keys_.pop_back();
        } else if (event == json::parse_event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            if (!keys_.back().insert(key).second) fail(shown(key) + " comes twice in its header");
        }
    }

    std::string path_;
    std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

std::map<std::string, std::string> read_metadata(const json& value, const HeaderReader& reader) {
    if (!value.is_object()) reader.fail("its __metadata__ is not a JSON object");
    std::map<std::string, std::string> metadata;
    for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) reader.fail("its __metadata__ has a value that is not a string");
        metadata[key] = text.get<std::string>();
    }
    return metadata;
}

// A list of numbers that fit std::size_t; nothing when it is something else.
std::optional<std::vector<std::size_t>> read_sizes(const json& entry, const char* key) {
    const auto found = entry.find(key);
    if (found == entry.end() || !found->is_array()) return std::nullopt;
    std::vector<std::size_t> sizes;
    for (const json& number : *found) {
        if (!number.is_number_unsigned()) return std::nullopt;
        sizes.push_back(number.get<std::size_t>());
    }
    return sizes;
}

std::size_t size_of(const std::string& type) {
    if (type == "U8") return 1;
    if (type == "F32") return sizeof(float);
    return type == "F64" ? sizeof(double) : 0;
}

// Fills name, type, shape, begin and end of an Entry from one member of the header.
template <class Entry>
Entry read_entry(const std::string& name, const json& value, const HeaderReader& reader) {
    const auto malformed = [&] {
        reader.fail("the header's entry of " + shown(name) + " is malformed");
    };
    if (!value.is_object()) malformed();
    const auto type = value.find("dtype");
    auto shape = read_sizes(value, "shape");
    const auto offsets = read_sizes(value, "data_offsets");
    if (type == value.end() || !type->is_string() || !shape || !offsets || offsets->size() != 2) {
        malformed();
    }
    Entry entry;
    entry.name = name;
    entry.type = type->template get<std::string>();
    entry.shape = std::move(*shape);
    entry.begin = (*offsets)[0];
    entry.end = (*offsets)[1];
    if (size_of(entry.type) == 0) {
        reader.fail(fmt::format("{} has type {}, and U8, F32 and F64 are read", shown(name),
                                shown(entry.type)));
    }
    const auto count = element_count(entry.shape);
    std::size_t bytes = 0;
    if (!count || __builtin_mul_overflow(*count, size_of(entry.type), &bytes) ||
        entry.begin > entry.end || entry.end - entry.begin != bytes) {
        reader.fail("the shape of " + shown(name) + " does not match its bytes");
    }
    return entry;
}

template <class T>
std::vector<T> copy_values(std::string_view bytes) {
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
    const std::vector<const SafeTensor*> order = ordered(tensors);
    const std::string header = make_header(order, metadata, path);
    std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(header))};
    for (const SafeTensor* tensor : order) parts.push_back(bytes_of(*tensor));
    write_file_atomically(path, parts);
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path.string()), file_(read_file(path)) {
    HeaderReader reader(path_);
    if (file_.size() < kLengthBytes) reader.fail("it is shorter than 8 bytes");
    std::uint64_t length = 0;
    std::memcpy(&length, file_.data(), kLengthBytes);
    if (length > kMaxHeader) reader.fail(fmt::format("its header would have {} bytes", length));
    if (length > file_.size() - kLengthBytes) {
        reader.fail(fmt::format("its header has {} bytes, and the file ends before", length));
    }
    data_begin_ = kLengthBytes + length;
    const std::string_view text(file_.data() + kLengthBytes, length);
    if (!text.starts_with('{')) reader.fail("its header does not start with {");
    const json header = reader.read(text);
    for (const auto& [name, value] : header.items()) {
        if (name == kMetadata) {
            metadata_ = read_metadata(value, reader);
        } else {
            entries_.push_back(read_entry<Entry>(name, value, reader));
        }
    }
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
        return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::size_t end = 0;
    for (const Entry& entry : entries_) {
        if (entry.begin != end) {
            reader.fail(fmt::format("there is a hole or an overlap in its data before {}",
                                    shown(entry.name)));
        }
        end = entry.end;
    }
    const std::size_t present = file_.size() - data_begin_;
    if (end != present) {
        reader.fail(fmt::format("its tensors have {} bytes, and the file holds {}", end, present));
    }
}

std::vector<std::string> SafetensorsFile::names() const {
    std::vector<std::string> names;
    for (const Entry& entry : entries_) names.push_back(entry.name);
    return names;
}

const SafetensorsFile::Entry* SafetensorsFile::find(const std::string& name) const {
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&name](const Entry& entry) { return entry.name == name; });
    return found == entries_.end() ? nullptr : &*found;
}

bool SafetensorsFile::contains(const std::string& name) const {
    return find(name) != nullptr;
}

LoadedTensor SafetensorsFile::tensor(const std::string& name) const {
    const Entry* entry = find(name);
    if (entry == nullptr) {
        throw InputError(fmt::format("{}: it has no tensor {}", path_, shown(name)));
    }
    const std::string_view bytes(file_.data() + data_begin_ + entry->begin,
                                 entry->end - entry->begin);
    if (entry->type == "U8") return {entry->shape, copy_values<std::uint8_t>(bytes)};
    if (entry->type == "F32") return {entry->shape, copy_values<float>(bytes)};
    return {entry->shape, copy_values<double>(bytes)};
}

}  // namespace vae
