#include "host/output_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "host/error.h"

namespace vae {
namespace {

double softplus(double a) {
    return std::max(a, 0.0) + std::log1p(std::exp(-std::abs(a)));
}

const char* name_of(Likelihood likelihood) {
    switch (likelihood) {
        case Likelihood::bernoulli:
        case Likelihood::categorical:
        case Likelihood::onehot:
            return "logits";
        case Likelihood::gaussian:
        case Likelihood::logistic:
            return "mean";
        case Likelihood::poisson:
            return "log_rate";
    }
    return "";
}

// log of the mean squared error, not below the floor.
double optimal_logvar(std::span<const double> mean, std::span<const double> x,
                      const DrawShape& draws, double least) {
    const std::size_t pixels = x.size() / draws.examples;
    double squares = 0;
    for (std::size_t i = 0; i < mean.size(); ++i) {
        const std::size_t example = i / pixels / draws.samples;
        const double error = mean[i] - x[example * pixels + i % pixels];
        squares += error * error;
    }
    return std::max(std::log(squares / static_cast<double>(mean.size())), least);
}

}  // namespace

std::size_t output_count(const ModelConfig& model, std::size_t pixels) {
    if (model.likelihood == Likelihood::onehot && pixels % model.levels != 0) {
        throw InputError(
            fmt::format("examples have {} values, which are no whole one-hot groups of {}: set "
                        "model.levels to the number of classes",
                        pixels, model.levels));
    }
    if (model.likelihood == Likelihood::categorical) return pixels * model.levels;
    return has_scale_outputs(model) ? 2 * pixels : pixels;
}

bool has_logvar(const ModelConfig& model) {
    return model.likelihood == Likelihood::gaussian &&
           (model.variance == Variance::shared || model.variance == Variance::optimal);
}

bool has_scale_outputs(const ModelConfig& model) {
    return model.likelihood == Likelihood::logistic ||
           (model.likelihood == Likelihood::gaussian && model.variance == Variance::pixel);
}

bool is_softmax(Likelihood likelihood) {
    return likelihood == Likelihood::categorical || likelihood == Likelihood::onehot;
}

bool takes_bytes_as_counts(Likelihood likelihood) {
    return likelihood == Likelihood::poisson || likelihood == Likelihood::onehot;
}

bool encodes_log_counts(Likelihood likelihood) {
    return likelihood == Likelihood::poisson;
}

LogBounds log_bounds(const ModelConfig& model) {
    const double power = model.likelihood == Likelihood::logistic ? 1 : 2;
    return {power * std::log(model.sigma_min), power * std::log(model.sigma_max)};
}

double bounded(double raw, const LogBounds& bounds) {
    const double below = bounds.most - softplus(bounds.most - raw);
    return bounds.least + softplus(below - bounds.least);
}

double sigma_of(const ModelConfig& model, double parameter) {
    return std::exp(
        (model.variance == Variance::shared ? bounded(parameter, log_bounds(model)) : parameter) /
        2);
}

std::vector<NamedOutputs> named_outputs(const ModelConfig& model, std::span<const double> outputs,
                                        std::span<const double> x, const DrawShape& draws,
                                        double parameter) {
    const std::size_t rows = draws.examples * draws.samples;
    const std::size_t width = outputs.size() / rows;
    const LogBounds bounds = log_bounds(model);
    const bool is_logistic = model.likelihood == Likelihood::logistic;
    const auto shape_of = [&draws](std::size_t cols) -> std::vector<std::size_t> {
        if (draws.samples == 1) return {draws.examples, cols};
        return {draws.examples, draws.samples, cols};
    };
    NamedOutputs first{
        name_of(model.likelihood), shape_of(width), {outputs.begin(), outputs.end()}};
    NamedOutputs scale{is_logistic ? "log_scale" : "decoder.out.logvar", {1}, {}};
    if (has_scale_outputs(model)) {
        const std::size_t pixels = width / 2;
        first.values.clear();
        for (std::size_t r = 0; r < rows; ++r) {
            const auto row = outputs.subspan(r * width, width);
            first.values.insert(first.values.end(), row.begin(),
                                row.begin() + static_cast<std::ptrdiff_t>(pixels));
            for (const double raw : row.subspan(pixels)) {
                scale.values.push_back(bounded(raw, bounds));
            }
        }
        first.shape = scale.shape = shape_of(pixels);
    } else if (has_logvar(model)) {
        scale.values = {model.variance == Variance::shared
                            ? bounded(parameter, bounds)
                            : optimal_logvar(outputs, x, draws, bounds.least)};
    } else {
        return {first};
    }
    return {first, scale};
}

}  // namespace vae
