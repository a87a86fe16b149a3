#include "host/pseudo_inputs.h"

#include <cstdint>
#include <limits>
#include <variant>
#include <vector>

#include "host/data_bias.h"
#include "host/noise.h"
#include "host/shuffle.h"

namespace vae {

namespace {

constexpr float kNoise = 0.01F;

// An order of the examples that no epoch has.
constexpr std::uint32_t kNoEpoch = std::numeric_limits<std::uint32_t>::max();

}  // namespace

void set_pseudo_inputs(const ParameterLayout& layout, const Dataset& data, std::uint64_t seed,
                       std::span<float> parameters) {
    const Tensor& inputs = layout.pseudo_inputs;
    if (inputs.size == 0) return;
    const std::size_t pixels = layout.pixels;
    const std::size_t components = inputs.size / pixels;
    const std::vector<std::uint32_t> rows =
        shuffled_rows(seed, kNoEpoch, static_cast<std::uint32_t>(data.size));
    const auto unit = static_cast<float>(unit_of(data));
    NoiseAddress address{.seed = seed, .purpose = Purpose::initialization, .step = 1};
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
