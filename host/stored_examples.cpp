#include "host/stored_examples.h"

#include <unistd.h>

#include <algorithm>
#include <variant>

#include "host/mapped_file.h"

namespace vae {

std::span<const std::byte> stored_bytes(const Dataset& data) {
    return std::visit(
        [](const auto& values) { return std::as_bytes(std::span(values.data(), values.size())); },
        data.values);
}

std::size_t row_bytes(const Dataset& data) {
    const bool is_bytes = std::holds_alternative<ByteValues>(data.values);
    return data.shape.pixels() * (is_bytes ? 1 : sizeof(float));
}

std::size_t row_bytes(const Splits& splits) {
    return std::max(
        {row_bytes(splits.train), row_bytes(splits.validation), row_bytes(splits.test)});
}

bool is_large_file(const Dataset& data) {
    const bool is_in_file =
        std::visit([](const auto& values) { return values.is_in_file(); }, data.values);
    static const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES));
    static const auto page_bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return is_in_file && stored_bytes(data).size() / page_bytes > pages / 2;
}

void expect_scattered_reads(const Dataset& data) {
    if (is_large_file(data)) advise_scattered(stored_bytes(data));
}

void expect_reads(const Dataset& data, std::span<const std::uint32_t> rows) {
    if (!is_large_file(data)) return;
    const std::span<const std::byte> bytes = stored_bytes(data);
    const std::size_t size = row_bytes(data);
    for (const std::uint32_t row : rows) advise_soon(bytes.subspan(row * size, size));
}

}  // namespace vae
