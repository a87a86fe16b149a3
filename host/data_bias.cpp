#include "host/data_bias.h"

#include <algorithm>
#include <cmath>
#include <variant>

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
        case Likelihood::gaussian:
            return mean;
    }
    return mean;
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

std::vector<double> pixel_means(const Dataset& data) {
    std::vector<double> sums(data.shape.pixels(), 0.0);
    double most = 1;  // what stands for 1
    std::visit(
        [&](const auto& values) {
            if (sizeof(values[0]) == 1) most = 255;
            for (std::size_t i = 0; i < data.size; ++i) {
                const auto* example = values.data() + i * sums.size();
                for (std::size_t c = 0; c < sums.size(); ++c) {
                    sums[c] += static_cast<double>(example[c]);
                }
            }
        },
        data.values);
    for (double& sum : sums) sum /= most * static_cast<double>(data.size);
    return sums;
}

void set_data_bias(const ModelConfig& model, const ParameterLayout& layout,
                   std::span<const double> means, std::size_t examples,
                   std::span<float> parameters) {
    for (std::size_t c = 0; c < means.size(); ++c) {
        parameters[layout.output.bias.offset + c] =
            static_cast<float>(link(model.likelihood, means[c], examples));
    }
    if (layout.encoder.empty()) {
        shift(layout.heads.mu_weight, layout.heads.mu_bias, means, parameters);
        shift(layout.heads.logvar_weight, layout.heads.logvar_bias, means, parameters);
        return;
    }
    const DenseLayer& first = layout.encoder.front();
    shift(first.weight, first.bias, means, parameters);
    if (first.is_gated()) shift(first.gate_weight, first.gate_bias, means, parameters);
}

}  // namespace vae
