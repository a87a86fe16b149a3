#include "host/data_bias.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <variant>

#include "host/output_layer.h"

namespace vae {

namespace {

// What the output must be for the likelihood's mean to be `mean`.
double link(Likelihood likelihood, double mean, std::size_t examples) {
    switch (likelihood) {
        case Likelihood::bernoulli: {
            const double least = 0.5 / static_cast<double>(examples);
            const double rate = std::clamp(mean, least, 1 - least);
            return std::log(rate) - std::log1p(-rate);
        }
        case Likelihood::onehot:
        case Likelihood::poisson:
            return std::log(std::max(mean, 0.5 / static_cast<double>(examples)));
        case Likelihood::gaussian:
        case Likelihood::logistic:
            return mean;
        case Likelihood::categorical:
            break;
    }
    throw std::logic_error("link: a categorical likelihood has no mean");
}

// log of how often each pixel is at each level, [pixels, levels].
std::vector<double> log_frequencies(const Dataset& data, std::uint32_t levels) {
    const std::size_t pixels = data.shape.pixels();
    std::vector<double> counts(pixels * levels, 0.5);
    const double steps = (levels - 1) / unit_of(data);
    std::visit(
        [&](const auto& values) {
            for (std::size_t i = 0; i < values.size(); ++i) {
                const auto level = std::lround(static_cast<double>(values[i]) * steps);
                counts[i % pixels * levels + static_cast<std::size_t>(level)] += 1;
            }
        },
        data.values);
    const double total = static_cast<double>(data.size) + 0.5 * levels;
    for (double& count : counts) count = std::log(count / total);
    return counts;
}

// The mean of f(value) of each pixel over all examples.
template <class Function>
std::vector<double> means_of(const Dataset& data, const Function& f) {
    std::vector<double> sums(data.shape.pixels(), 0.0);
    std::visit(
        [&](const auto& values) {
            for (std::size_t i = 0; i < data.size; ++i) {
                const auto* example = values.data() + i * sums.size();
                for (std::size_t c = 0; c < sums.size(); ++c) {
                    sums[c] += f(static_cast<double>(example[c]));
                }
            }
        },
        data.values);
    for (double& sum : sums) sum /= static_cast<double>(data.size);
    return sums;
}

// Of what the encoder sees.
std::vector<double> input_means(Likelihood likelihood, const Dataset& data) {
    if (!encodes_log_counts(likelihood)) return pixel_means(data);
    return means_of(data, [](double count) { return std::log2(1 + count) / 8; });
}

// bias −= weight · means
void shift(const Tensor& weight, const Tensor& bias, std::span<const double> means,
           std::span<float> parameters) {
    for (std::size_t row = 0; row < bias.size; ++row) {
        double sum = 0;
        for (std::size_t c = 0; c < means.size(); ++c) {
            sum +=
                static_cast<double>(parameters[weight.offset + row * means.size() + c]) * means[c];
        }
        float& value = parameters[bias.offset + row];
        value = static_cast<float>(static_cast<double>(value) - sum);
    }
}

}  // namespace

double unit_of(const Dataset& data) {
    const bool is_grey = std::holds_alternative<ByteValues>(data.values) && !data.bytes_are_counts;
    return is_grey ? 255 : 1;
}

std::vector<double> pixel_means(const Dataset& data) {
    std::vector<double> means = means_of(data, [](double value) { return value; });
    for (double& mean : means) mean /= unit_of(data);
    return means;
}

void set_data_bias(const ModelConfig& model, const ParameterLayout& layout, const Dataset& data,
                   std::span<float> parameters) {
    std::vector<double> outputs;
    if (model.likelihood == Likelihood::categorical) {
        outputs = log_frequencies(data, model.levels);
    } else {
        for (const double mean : pixel_means(data)) {
            outputs.push_back(link(model.likelihood, mean, data.size));
        }
    }
    for (std::size_t c = 0; c < outputs.size(); ++c) {
        parameters[layout.output.bias.offset + c] = static_cast<float>(outputs[c]);
    }
    const std::vector<double> means = input_means(model.likelihood, data);
    if (layout.encoder.empty()) {
        shift(layout.heads.mu_weight, layout.heads.mu_bias, means, parameters);
        shift(layout.heads.logvar_weight, layout.heads.logvar_bias, means, parameters);
        if (layout.heads.is_full()) {
            shift(layout.heads.tril_weight, layout.heads.tril_bias, means, parameters);
        }
        return;
    }
    const DenseLayer& first = layout.encoder.front();
    shift(first.weight, first.bias, means, parameters);
    if (first.is_gated()) shift(first.gate_weight, first.gate_bias, means, parameters);
}

}  // namespace vae
