#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "host/data_source.h"
#include "host/error.h"
#include "host/output_layer.h"

namespace vae {
namespace {

// −x ln x − (1−x) ln(1−x), with 0 ln 0 = 0.
double binary_entropy(double x) {
    if (!(x > 0.0 && x < 1.0)) return 0.0;
    return -x * std::log(x) - (1.0 - x) * std::log1p(-x);
}

double entropy_sum(const ByteValues& values) {
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

double entropy_sum(const FloatValues& values) {
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

// Whether values are in the support, and what to say of one that is not.
class Support {
  public:
    Support(const ModelConfig& model, Binarize binarize)
        : kind_(binarize == Binarize::none ? model.likelihood : Likelihood::bernoulli),
          is_binarized_(binarize != Binarize::none),
          steps_(model.levels - 1) {}

    bool holds(double value) const {
        switch (kind_) {
            case Likelihood::bernoulli:
                return value >= 0 && value <= 1;
            case Likelihood::gaussian:
                return std::isfinite(value);
            case Likelihood::logistic:
            case Likelihood::categorical:
                return is_level(value);
            case Likelihood::onehot:
                return value == 0 || value == 1;
            case Likelihood::poisson:
                return value >= 0 && std::isfinite(value) && value == std::floor(value);
        }
        return false;
    }

    std::string complaint(double value) const {
        if (!std::isfinite(value)) return "not finite: remove or replace it";
        switch (kind_) {
            case Likelihood::gaussian:
                return "not finite: remove or replace it";
            case Likelihood::bernoulli:
                return is_binarized_ ? "outside [0,1], which --binarize needs: scale the values, "
                                       "or save bytes as uint8"
                                     : "outside [0,1], which the Bernoulli likelihood needs: scale "
                                       "the values, save bytes as uint8, or use the Gaussian one";
            case Likelihood::logistic:
            case Likelihood::categorical:
                return fmt::format(
                    "none of the {} levels k/{} of [0,1]: round the values, or set model.levels to "
                    "how many there are",
                    steps_ + 1, steps_);
            case Likelihood::onehot:
                return "neither 0 nor 1, as a one-hot value is (bytes are taken as they are): "
                       "encode "
                       "the classes, or use the categorical likelihood";
            case Likelihood::poisson:
                return "no count: the Poisson likelihood needs the integers 0, 1, 2, …: round the "
                       "values, or use the Gaussian one";
        }
        return "";
    }

    bool is_onehot() const { return kind_ == Likelihood::onehot; }

  private:
    // A float that is k/steps but for two roundings is k; a byte that is no level is far from one.
    bool is_level(double value) const {
        const double level = value * steps_;
        return value >= 0 && value <= 1 && std::abs(level - std::round(level)) <= 2.5e-7 * steps_;
    }

    Likelihood kind_;
    bool is_binarized_;
    std::uint32_t steps_;
};

// Numbers that the model sees for a value.
double number_of(float value, bool) {
    return static_cast<double>(value);
}
double number_of(std::uint8_t value, bool is_count) {
    return static_cast<double>(value) / (is_count ? 1.0 : 255.0);
}

bool holds_every_byte(const Support& support, bool is_count) {
    for (int byte = 0; byte < 256; ++byte) {
        if (!support.holds(number_of(static_cast<std::uint8_t>(byte), is_count))) return false;
    }
    return true;
}

template <class Value>
void check_values(const Values<Value>& values, const Dataset& data, const Support& support,
                  const std::string& source) {
    if (std::is_same_v<Value, std::uint8_t> && holds_every_byte(support, data.bytes_are_counts)) {
        return;
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
        const double number = number_of(values[i], data.bytes_are_counts);
        if (support.holds(number)) continue;
        const std::size_t pixels = data.shape.pixels();
        const std::string byte = std::is_same_v<Value, float> || data.bytes_are_counts
                                     ? ""
                                     : fmt::format(" (byte {})", values[i]);
        throw InputError(fmt::format("{}: example {}, {}: the value {}{} is {}", source, i / pixels,
                                     position(data.shape, i % pixels), static_cast<float>(number),
                                     byte, support.complaint(number)));
    }
}

// Each group of `classes` values, all 0 or 1, has a single 1.
template <class Value>
void check_groups(const Values<Value>& values, const Dataset& data, std::size_t classes,
                  const std::string& source) {
    const std::size_t pixels = data.shape.pixels();
    for (std::size_t i = 0; i < values.size(); i += classes) {
        const Value* const first = values.begin() + i;
        const auto ones = std::count(first, first + classes, Value(1));
        if (ones == 1) continue;
        throw InputError(
            fmt::format("{}: example {}, {}: the one-hot group of {} values that starts here has "
                        "{} ones, not one: set model.levels to the number of classes, or mend the "
                        "data",
                        source, i / pixels, position(data.shape, i % pixels), classes, ones));
    }
}

}  // namespace

void check_support(const Dataset& data, const ModelConfig& model, Binarize binarize,
                   const std::string& source) {
    const Support support(model, binarize);
    // Under a wrong width of the groups the values make no sense: it is said first.
    if (support.is_onehot()) output_count(model, data.shape.pixels());
    std::visit(
        [&](const auto& values) {
            check_values(values, data, support, source);
            if (support.is_onehot()) check_groups(values, data, model.levels, source);
        },
        data.values);
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
