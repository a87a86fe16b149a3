// Small data sets and models for tests, and how their numbers are compared.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "host/backend.h"
#include "host/noise.h"
#include "host/parameters.h"

namespace vae::test {

// size examples of values in [0, 1], drawn from the noise of `seed`.
inline Dataset random_floats(std::size_t size, std::size_t pixels, std::uint32_t first_index = 0,
                             std::uint64_t seed = 5) {
    Dataset data;
    data.shape = {1, pixels, 1};
    data.size = size;
    data.first_index = first_index;
    std::vector<float> values(size * pixels);
    fill_uniform({seed, Purpose::synthetic_data, 0, first_index, 0}, values);
    data.values = std::move(values);
    return data;
}

// Values of [0, 1] moved into what the model's likelihood supports: levels, one-hot groups, counts
// up to 6.
inline Dataset in_support(Dataset data, const ModelConfig& model) {
    const auto steps = static_cast<float>(model.levels - 1);
    auto& values = std::get<std::vector<float>>(data.values);
    for (std::size_t i = 0; i < values.size(); ++i) {
        switch (model.likelihood) {
            case Likelihood::bernoulli:
            case Likelihood::gaussian:
                break;
            case Likelihood::logistic:
            case Likelihood::categorical:
                values[i] = std::round(values[i] * steps) / steps;
                break;
            case Likelihood::onehot: {
                const std::size_t within = i % model.levels;
                const float chosen = std::floor(values[i - within] * (steps + 0.99F));
                // The group's own first value says which is 1, so it is replaced last.
                if (within > 0) values[i] = static_cast<float>(within) == chosen ? 1.0F : 0.0F;
                if (within + 1 == model.levels) values[i - within] = chosen == 0 ? 1.0F : 0.0F;
                break;
            }
            case Likelihood::poisson:
                values[i] = std::floor(values[i] * 6.99F);
                break;
        }
    }
    return data;
}

inline Dataset random_bytes(std::size_t size, std::size_t pixels, std::uint32_t first_index = 0) {
    Dataset data = random_floats(size, pixels, first_index);
    std::vector<std::uint8_t> bytes;
    for (const float value : std::get<std::vector<float>>(data.values)) {
        bytes.push_back(static_cast<std::uint8_t>(value * 255.0F));
    }
    data.values = std::move(bytes);
    return data;
}

// A training split of bytes, and a test split that is counted on from it.
inline Splits random_splits(std::size_t train, std::size_t test, std::size_t pixels) {
    Splits splits;
    splits.train = random_bytes(train, pixels);
    splits.test = random_bytes(test, pixels, static_cast<std::uint32_t>(train));
    return splits;
}

inline TrainingState state_of(const ParameterLayout& layout, std::vector<float> parameters) {
    TrainingState state;
    state.parameters = std::move(parameters);
    state.adam_m.assign(layout.arena_size, 0.0F);
    state.adam_v.assign(layout.arena_size, 0.0F);
    return state;
}

inline TrainingState initial_state(const ParameterLayout& layout, const Config& config) {
    return state_of(layout,
                    initial_parameters(layout, config.model.initialization, config.train.seed));
}

// 0, 1, …, count − 1.
inline std::vector<std::uint32_t> first_rows(std::size_t count) {
    std::vector<std::uint32_t> rows(count);
    std::iota(rows.begin(), rows.end(), 0U);
    return rows;
}

inline const TracedTensor& find(const Trace& trace, const std::string& name) {
    for (const TracedTensor& tensor : trace) {
        if (tensor.name == name) return tensor;
    }
    throw std::out_of_range("no tensor " + name + " in the trace");
}

// |a − b| / |b| over all elements. Infinite, so that every bound fails, for a comparison of
// nothing or of different sizes and where there is a NaN; 0 for two zero tensors.
inline double relative_l2(std::span<const double> a, std::span<const double> b) {
    if (a.empty() || a.size() != b.size()) return std::numeric_limits<double>::infinity();
    double error = 0;
    double norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        error += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    if (error == 0) return 0;
    const double relative = std::sqrt(error / norm);
    return std::isnan(relative) ? std::numeric_limits<double>::infinity() : relative;
}

}  // namespace vae::test
