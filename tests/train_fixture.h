// Training runs of a small configuration in folders of their own.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "host/data_source.h"
#include "host/files.h"
#include "host/train.h"
#include "tests/temporary_folder.h"

namespace vae::testing {

// 6000 examples in batches of 1100: five whole steps and a ragged one an epoch.
inline Config small_config() {
    Config config;
    config.data.source = "synthetic:bars";
    config.data.binarize = Binarize::dynamic;
    config.model.encoder_hidden = {16};
    config.model.decoder_hidden = {16};
    config.model.latent = 3;
    config.train.batch = 1100;
    config.train.epochs = 3;
    return config;
}

inline bool never() {
    return false;
}

// A run of `config` in `folder`, from the folder's checkpoint when it has one.
inline TrainResult train_in(const RunFolder& folder, const Config& config, const Splits& splits,
                            const std::function<bool()>& should_stop = never,
                            Progress* progress = nullptr) {
    Checkpoint start = initial_checkpoint(config, splits);
    if (std::filesystem::exists(folder.checkpoint())) start = load_checkpoint(folder.checkpoint());
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits);
    Progress silent(nullptr, false);
    return Trainer(config, splits, *backend, folder, progress != nullptr ? *progress : silent)
        .run(std::move(start), should_stop);
}

inline std::vector<nlohmann::json> metrics_of(const RunFolder& folder) {
    std::vector<nlohmann::json> rows;
    std::istringstream in(read_file(folder.metrics()));
    for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
}

inline void expect_same_state(const RunFolder& a, const RunFolder& b) {
    const Checkpoint one = load_checkpoint(a.checkpoint());
    const Checkpoint other = load_checkpoint(b.checkpoint());
    EXPECT_EQ(one.state.step, other.state.step);
    EXPECT_EQ(one.state.parameters, other.state.parameters);
    EXPECT_EQ(one.state.moments, other.state.moments);
    EXPECT_EQ(one.state.ema, other.state.ema);
}

class TrainTest : public ::testing::Test {
  protected:
    TrainTest() : splits_(load_splits(small_config().data, small_config().model)) {
        for (const auto* run : {&whole_, &other_}) std::filesystem::create_directory(run->root);
    }

    TemporaryFolder folder_;
    RunFolder whole_{folder_ / "whole"};
    RunFolder other_{folder_ / "other"};
    Splits splits_;
};

}  // namespace vae::testing
