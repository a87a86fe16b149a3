#include "host/examples.h"

#include <fmt/format.h>

#include <limits>
#include <stdexcept>
#include <utility>

#include "host/error.h"
#include "host/shape.h"

namespace vae {

Dataset make_dataset(std::span<const std::size_t> shape,
                     std::variant<ByteValues, FloatValues> values, const std::string& name) {
    if (shape.size() < 2 || shape.size() > 4) {
        throw InputError(
            fmt::format("{}: its shape is {}, and examples have the shape (N,D), "
                        "(N,H,W) or (N,H,W,C)",
                        name, to_text(shape)));
    }
    if (shape[0] == 0)
        throw InputError(fmt::format("{}: it holds no examples; name another source", name));
    if (element_count(shape) == 0) {
        throw InputError(
            fmt::format("{}: its examples have no pixels: its shape is {}", name, to_text(shape)));
    }
    if (shape[0] > std::numeric_limits<std::uint32_t>::max()) {
        throw InputError(
            fmt::format("{}: {} examples are more than can be counted in 32 bits", name, shape[0]));
    }
    Dataset data;
    data.size = shape[0];
    data.shape.height = shape.size() == 2 ? 1 : shape[1];
    data.shape.width = shape.size() == 2 ? shape[1] : shape[2];
    data.shape.channels = shape.size() == 4 ? shape[3] : 1;
    const std::size_t present = std::visit([](const auto& v) { return v.size(); }, values);
    if (element_count(shape) != present) {
        throw std::invalid_argument(
            fmt::format("make_dataset: shape {} and {} values", to_text(shape), present));
    }
    data.values = std::move(values);
    return data;
}

Dataset part_of_examples(const Dataset& data, std::size_t begin, std::size_t end) {
    if (begin > end || end > data.size) {
        throw std::invalid_argument("part_of_examples: out of range");
    }
    Dataset part = data;
    part.size = end - begin;
    part.first_index = data.first_index + static_cast<std::uint32_t>(begin);
    const std::size_t pixels = data.shape.pixels();
    std::visit([&](auto& values) { values = values.part(begin * pixels, part.size * pixels); },
               part.values);
    return part;
}

void keep_first(Dataset& data, std::size_t size) {
    data = part_of_examples(data, 0, size);
}

}  // namespace vae
