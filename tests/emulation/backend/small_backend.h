// A small network and its data, for what the backend does with the runtime.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "emulation.h"
#include "host/config.h"
#include "host/dataset.h"

namespace vae::test {

inline constexpr std::size_t kSmallPixels = 12;

// Steps of 4 examples, in graphs of 2.
inline Config small_config() {
    Config config;
    config.model.encoder_hidden = {9};
    config.model.latent = 3;
    config.model.decoder_hidden = {8};
    config.train.batch = 4;
    config.train.precision = Precision::fp32;
    config.train.ema = 0.9;
    config.train.graph_steps = 2;
    return config;
}

// So many training examples and as many test examples, all alike.
inline Splits small_splits(std::size_t examples) {
    Splits splits;
    for (Dataset* data : {&splits.train, &splits.test}) {
        data->shape.width = kSmallPixels;
        data->size = examples;
        data->values = std::vector<std::uint8_t>(examples * kSmallPixels, 100);
    }
    splits.test.first_index = static_cast<std::uint32_t>(examples);
    return splits;
}

// Of what was called since the last reset no name has one of these in it. Something was called.
inline void expect_not_called(std::initializer_list<const char*> parts) {
    const auto calls = emulation::calls();
    EXPECT_FALSE(calls.empty());
    for (const auto& [call, count] : calls) {
        for (const char* const part : parts) {
            EXPECT_EQ(call.find(part), std::string::npos) << call;
        }
    }
}

}  // namespace vae::test
