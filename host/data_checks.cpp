#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "host/data_source.h"
#include "host/error.h"

namespace vae {
namespace {

// −x ln x − (1−x) ln(1−x), with 0 ln 0 = 0.
double binary_entropy(double x) {
    if (!(x > 0.0 && x < 1.0)) return 0.0;
    return -x * std::log(x) - (1.0 - x) * std::log1p(-x);
}

double entropy_sum(const std::vector<std::uint8_t>& values) {
    std::array<double, 256> entropy = {};
    for (std::size_t b = 0; b < entropy.size(); ++b) {
        entropy[b] = binary_entropy(static_cast<double>(b) / 255.0);
    }
    std::array<std::size_t, 256> counts = {};
    for (const std::uint8_t value : values) ++counts[value];
    double sum = 0;
    for (std::size_t b = 0; b < entropy.size(); ++b) {
        sum += entropy[b] * static_cast<double>(counts[b]);
    }
    return sum;
}

double entropy_sum(const std::vector<float>& values) {
    double sum = 0;
    for (const float value : values) sum += binary_entropy(static_cast<double>(value));
    return sum;
}

// Where value `at` of an example lies, for people; counted from 0.
std::string position(const ImageShape& shape, std::size_t at) {
    const std::size_t pixel = at / shape.channels;
    const std::string channel =
        shape.channels == 1 ? "" : fmt::format(", channel {}", at % shape.channels);
    if (shape.height == 1) return fmt::format("position {}{}", pixel, channel);
    return fmt::format("row {}, column {}{}", pixel / shape.width, pixel % shape.width, channel);
}

const char* outside_remedy(bool is_binarized) {
    return is_binarized
               ? "outside [0,1], which --binarize needs: scale the values, or save bytes as uint8"
               : "outside [0,1], which the Bernoulli likelihood needs: scale the values, save "
                 "bytes as uint8, or use the Gaussian one";
}

}  // namespace

void check_support(const Dataset& data, Likelihood likelihood, Binarize binarize,
                   const std::string& source) {
    const auto* values = std::get_if<std::vector<float>>(&data.values);
    if (values == nullptr) return;  // every byte stands for a number in [0,1]
    const bool is_binarized = binarize != Binarize::none;
    const bool is_bounded = is_binarized || likelihood == Likelihood::bernoulli;
    for (std::size_t i = 0; i < values->size(); ++i) {
        const float value = (*values)[i];
        const bool inside = is_bounded ? value >= 0.0f && value <= 1.0f : std::isfinite(value);
        if (inside) continue;
        const std::size_t pixels = data.shape.pixels();
        throw InputError(fmt::format("{}: example {}, {}: the value {} is {}", source, i / pixels,
                                     position(data.shape, i % pixels), value,
                                     !std::isfinite(value) ? "not finite: remove or replace it"
                                                           : outside_remedy(is_binarized)));
    }
}

double entropy_floor(const Dataset& data) {
    if (data.size == 0) return 0;
    const double sum =
        std::visit([](const auto& values) { return entropy_sum(values); }, data.values);
    return sum / static_cast<double>(data.size);
}

std::vector<std::string> data_warnings(const Splits& splits, const DataConfig& data,
                                       Likelihood likelihood) {
    if (likelihood != Likelihood::bernoulli || data.binarize != Binarize::none) return {};
    const Split split = splits.test.size != 0 ? Split::test : Split::train;
    const double floor = entropy_floor(splits.of(split));
    if (floor == 0) return {};
    return {fmt::format(
        "{} has grey pixels, which a Bernoulli likelihood takes as probabilities: recon and elbo "
        "are then no likelihood of the images, and on the {} split recon cannot fall below {:.2f} "
        "nats per example, the pixels' own entropy; --binarize makes them black and white",
        data.source, name_of(split), floor)};
}

}  // namespace vae
