#include "host/pseudo_inputs.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>
#include <vector>

#include "host/data_bias.h"
#include "host/noise.h"

namespace vae {

namespace {

constexpr float kNoise = 0.01F;

// The first `count` examples in an order that the noise makes.
std::vector<std::uint32_t> picked(std::uint64_t seed, std::size_t size, std::size_t count) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> keyed(size);
    NoiseAddress address{.seed = seed, .purpose = Purpose::initialization, .step = 1};
    for (std::size_t row = 0; row < size; ++row) {
        address.example = static_cast<std::uint32_t>(row);
        const PhiloxBlock words = noise_block(address, 0);
        keyed[row] = {words[0] | std::uint64_t{words[1]} << 32, address.example};
    }
    const auto last = keyed.begin() + static_cast<std::ptrdiff_t>(std::min(count, size));
    std::partial_sort(keyed.begin(), last, keyed.end());
    std::vector<std::uint32_t> rows;
    std::transform(keyed.begin(), last, std::back_inserter(rows),
                   [](const auto& pair) { return pair.second; });
    return rows;
}

}  // namespace

void set_pseudo_inputs(const ParameterLayout& layout, const Dataset& data, std::uint64_t seed,
                       std::span<float> parameters) {
    const Tensor& inputs = layout.pseudo_inputs;
    if (inputs.size == 0) return;
    const std::size_t pixels = layout.pixels;
    const std::size_t components = inputs.size / pixels;
    const std::vector<std::uint32_t> rows = picked(seed, data.size, components);
    const auto unit = static_cast<float>(unit_of(data));
    NoiseAddress address{.seed = seed, .purpose = Purpose::initialization, .step = 2};
    for (std::size_t k = 0; k < components; ++k) {
        const std::span<float> input = parameters.subspan(inputs.offset + k * pixels, pixels);
        address.example = static_cast<std::uint32_t>(k);
        fill_normal(address, input);
        const std::size_t first = rows[k % rows.size()] * pixels;
        std::visit(
            [&](const auto& values) {
                for (std::size_t c = 0; c < pixels; ++c) {
                    const auto value = static_cast<float>(values[first + c]) / unit;
                    input[c] = value + kNoise * input[c];
                }
            },
            data.values);
    }
}

}  // namespace vae
