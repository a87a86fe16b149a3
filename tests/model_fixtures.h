// Small data sets and models for tests, and how their numbers are compared.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
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

// Bit for bit; NaN is equal to nothing.
inline void expect_same(const TrainingState& a, const TrainingState& b) {
    EXPECT_FALSE(a.parameters.empty());
    EXPECT_EQ(a.parameters, b.parameters);
    EXPECT_EQ(a.moments, b.moments);
    EXPECT_EQ(a.ema, b.ema);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.running_mean, b.running_mean);
}

inline void expect_same(const LossTotals& a, const LossTotals& b) {
    EXPECT_EQ(a.recon, b.recon);
    EXPECT_EQ(a.kl, b.kl);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.examples, b.examples);
}

// Gives `change` the values, which are T, as a vector that it may change.
template <class T, class Change>
void change_values(Dataset& data, const Change& change) {
    const auto& values = std::get<Values<T>>(data.values);
    std::vector<T> changed(values.begin(), values.end());
    change(changed);
    data.values = std::move(changed);
}

// Values of [0, 1] moved into what the model's likelihood supports: levels, one-hot groups, counts
// up to 6.
inline Dataset in_support(Dataset data, const ModelConfig& model) {
    const auto steps = static_cast<float>(model.levels - 1);
    const auto& from = std::get<FloatValues>(data.values);
    std::vector<float> values(from.begin(), from.end());
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
    data.values = std::move(values);
    return data;
}

inline Dataset random_bytes(std::size_t size, std::size_t pixels, std::uint32_t first_index = 0) {
    Dataset data = random_floats(size, pixels, first_index);
    std::vector<std::uint8_t> bytes;
    for (const float value : std::get<FloatValues>(data.values)) {
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

inline TrainingState initial_state(const ParameterLayout& layout, const Config& config) {
    return start_state(config.train,
                       initial_parameters(layout, config.model.initialization, config.train.seed));
}

// The elements of an arena that no tensor has.
inline std::vector<float> padding_of(const ParameterLayout& layout, std::vector<float> arena) {
    std::vector<bool> is_padding(arena.size(), true);
    for (const Tensor& tensor : layout.tensors()) {
        std::fill_n(is_padding.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size,
                    false);
    }
    std::vector<float> padding;
    for (std::size_t i = 0; i < arena.size(); ++i) {
        if (is_padding[i]) padding.push_back(arena[i]);
    }
    return padding;
}

// `data` as floats, with a NaN in the first pixel of one example.
inline Dataset with_nan(Dataset data, std::size_t example) {
    const std::size_t pixels = data.shape.pixels();
    if (const auto* bytes = std::get_if<ByteValues>(&data.values)) {
        std::vector<float> values;
        for (const std::uint8_t byte : *bytes) values.push_back(static_cast<float>(byte) / 255.0F);
        data.values = std::move(values);
    }
    change_values<float>(data, [&](std::vector<float>& values) {
        values.at(example * pixels) = std::numeric_limits<float>::quiet_NaN();
    });
    return data;
}

// The ways to train, by name: each optimiser, and what may be done to gradients and parameters.
inline std::vector<std::pair<std::string, TrainConfig>> ways_to_train() {
    std::vector<std::pair<std::string, TrainConfig>> ways;
    const auto add = [&ways](const std::string& name, Optimizer optimizer, double weight_decay,
                             double learning_rate) -> TrainConfig& {
        TrainConfig train;
        train.optimizer = optimizer;
        train.weight_decay = weight_decay;
        train.learning_rate = learning_rate;
        return ways.emplace_back(name, train).second;
    };
    add("adam_decay", Optimizer::adam, 0.1, 1e-3);
    add("adamw", Optimizer::adamw, 0.1, 1e-3);
    add("adagrad", Optimizer::adagrad, 0, 0.01);
    add("adagrad_decay", Optimizer::adagrad, 0.1, 0.01);
    add("sgd_momentum", Optimizer::sgd, 0.1, 1e-3).ema = 0.6;
    add("sgd_plain", Optimizer::sgd, 0.1, 1e-3).momentum = 0;
    add("clipped", Optimizer::sgd, 0, 1e-2).clip_norm = 0.5;
    add("normalized", Optimizer::adam, 0, 1e-3).normalize_gradients = true;
    TrainConfig& all = add("normalized_clipped_averaged", Optimizer::sgd, 0.01, 1e-2);
    all.normalize_gradients = true;
    all.clip_norm = 1.5;
    all.ema = 0.9;
    return ways;
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
