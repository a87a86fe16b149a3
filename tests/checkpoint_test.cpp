#include "host/checkpoint.h"

#include <gtest/gtest.h>

#include <list>
#include <string>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/files.h"
#include "host/safetensors.h"
#include "host/settings.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

Checkpoint small_checkpoint() {
    Checkpoint checkpoint;
    checkpoint.config.model.encoder_hidden = {5};
    checkpoint.config.model.decoder_hidden = {7};
    checkpoint.config.model.latent = 3;
    checkpoint.shape = {2, 3, 1};
    checkpoint.train_examples = 1000;
    const ParameterLayout layout = checkpoint.layout();
    checkpoint.state.parameters = initial_parameters(layout, Initialization::pytorch, 1);
    checkpoint.state.moments = {initial_parameters(layout, Initialization::pytorch, 2),
                                initial_parameters(layout, Initialization::pytorch, 3)};
    checkpoint.state.step = (std::uint64_t{1} << 32) - 1;
    checkpoint.state.running_mean = -2.0 / 3;
    checkpoint.epoch_totals.losses = {.recon = 1.0 / 3, .kl = 1e-300, .loss = 7, .examples = 11};
    checkpoint.epoch_totals.skipped = {.count = 2, .first_step = 9, .first_tensor = "decoder.out"};
    checkpoint.epoch_seconds = 0.1;
    return checkpoint;
}

std::string error_of(const std::filesystem::path& path) {
    return message_of<InputError>([&] { load_checkpoint(path); });
}

// The file with one text in it replaced by another of the same length.
void replace_in_file(const std::filesystem::path& path, const std::string& from,
                     const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string file = read_file(path);
    const std::size_t at = file.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    put_file(path, file.replace(at, from.size(), to));
}

TEST(Checkpoint, IsReadBackExactly) {
    const TemporaryFolder folder;
    const Checkpoint saved = small_checkpoint();
    save_checkpoint(folder / "c", saved);
    const Checkpoint loaded = load_checkpoint(folder / "c");
    EXPECT_TRUE(differing_settings(saved.config, loaded.config).empty());
    EXPECT_EQ(loaded.shape, saved.shape);
    EXPECT_EQ(loaded.train_examples, saved.train_examples);
    EXPECT_EQ(loaded.state.step, saved.state.step);
    EXPECT_EQ(loaded.state.running_mean, saved.state.running_mean);
    EXPECT_EQ(loaded.state.parameters, saved.state.parameters);
    EXPECT_EQ(loaded.state.moments, saved.state.moments);
    EXPECT_TRUE(loaded.state.ema.empty());
    const auto& [losses, skipped] = loaded.epoch_totals;
    EXPECT_EQ(losses.recon, saved.epoch_totals.losses.recon);
    EXPECT_EQ(losses.kl, saved.epoch_totals.losses.kl);
    EXPECT_EQ(losses.loss, saved.epoch_totals.losses.loss);
    EXPECT_EQ(losses.examples, saved.epoch_totals.losses.examples);
    EXPECT_EQ(skipped.count, 2U);
    EXPECT_EQ(skipped.first_step, 9U);
    EXPECT_EQ(skipped.first_tensor, "decoder.out");
    EXPECT_EQ(loaded.epoch_seconds, saved.epoch_seconds);
}

TEST(Checkpoint, KnowsHowEarlyStoppingStands) {
    const TemporaryFolder folder;
    Checkpoint saved = small_checkpoint();
    saved.early_stopping = {.best_elbo = -1.0 / 3, .best_epoch = 31, .stale_epochs = 4};
    save_checkpoint(folder / "without", saved);
    EXPECT_EQ(SafetensorsFile(folder / "without").metadata().count("best_epoch"), 0U);
    EXPECT_EQ(load_checkpoint(folder / "without").early_stopping.best_epoch, 0U);
    saved.config.train.patience = 5;
    save_checkpoint(folder / "c", saved);
    const EarlyStopping loaded = load_checkpoint(folder / "c").early_stopping;
    EXPECT_EQ(loaded.best_elbo, saved.early_stopping.best_elbo);
    EXPECT_EQ(loaded.best_epoch, 31U);
    EXPECT_EQ(loaded.stale_epochs, 4U);
    replace_in_file(folder / "c", "stale_epochs", "stele_epochs");
    EXPECT_TRUE(contains(error_of(folder / "c"), "no \"stale_epochs\""));
}

TEST(Checkpoint, TensorsHaveTheirLogicalShapes) {
    const TemporaryFolder folder;
    save_checkpoint(folder / "c", small_checkpoint());
    const SafetensorsFile file(folder / "c");
    EXPECT_EQ(file.tensor("encoder.0.weight").shape, (std::vector<std::size_t>{5, 6}));
    EXPECT_EQ(file.tensor("encoder.logvar.weight").shape, (std::vector<std::size_t>{3, 5}));
    EXPECT_EQ(file.tensor("adam.m.decoder.out.bias").shape, (std::vector<std::size_t>{6}));
    EXPECT_EQ(file.names().size(), 3U * 10U);
    EXPECT_EQ(file.metadata().at("format_version"), "1");
}

TEST(Checkpoint, EveryOptimizersMomentsAreReadBackByName) {
    const TemporaryFolder folder;
    using Names = std::vector<std::string>;
    const std::vector<std::pair<TrainConfig, Names>> cases = {
        {{.optimizer = Optimizer::adam}, {"adam.m.", "adam.v."}},
        {{.optimizer = Optimizer::adamw, .ema = 0.5}, {"adam.m.", "adam.v.", "ema."}},
        {{.optimizer = Optimizer::adagrad}, {"adagrad.sum."}},
        {{.optimizer = Optimizer::sgd}, {"sgd.momentum."}},
        {{.optimizer = Optimizer::sgd, .momentum = 0}, {}},
        {{.optimizer = Optimizer::sgd, .momentum = 0, .ema = 0.5}, {"ema."}}};
    for (const auto& [train, prefixes] : cases) {
        Checkpoint saved = small_checkpoint();
        const ParameterLayout layout = saved.layout();
        saved.config.train = train;
        saved.state = start_state(train, std::move(saved.state.parameters));
        std::uint64_t seed = 5;
        for (auto& moment : saved.state.moments) {
            moment = initial_parameters(layout, Initialization::pytorch, seed++);
        }
        if (train.ema > 0) {
            saved.state.ema = initial_parameters(layout, Initialization::pytorch, seed);
        }
        save_checkpoint(folder / "c", saved);
        const SafetensorsFile file(folder / "c");
        EXPECT_EQ(file.names().size(), (1 + prefixes.size()) * layout.tensors().size());
        for (const std::string& prefix : prefixes) {
            EXPECT_TRUE(file.contains(prefix + "encoder.mu.weight")) << prefix;
        }
        const Checkpoint loaded = load_checkpoint(folder / "c");
        EXPECT_EQ(loaded.state.parameters, saved.state.parameters);
        EXPECT_EQ(loaded.state.moments, saved.state.moments);
        EXPECT_EQ(loaded.state.ema, saved.state.ema);
    }
}

// What this program wrote when it had Adam alone: no such settings, and no word of skipped steps.
TEST(Checkpoint, FilesOfBeforeThereWereOtherOptimizersAreRead) {
    const TemporaryFolder folder;
    const Checkpoint saved = small_checkpoint();
    save_checkpoint(folder / "c", saved);
    const SafetensorsFile file(folder / "c");
    std::vector<SafeTensor> tensors;
    std::list<LoadedTensor> values;
    for (const std::string& name : file.names()) {
        values.push_back(file.tensor(name));
        tensors.push_back(
            {name, values.back().shape,
             std::span<const float>(std::get<std::vector<float>>(values.back().values))});
    }
    auto metadata = file.metadata();
    std::erase_if(metadata, [](const auto& entry) {
        return entry.first.find("skipped") != std::string::npos;
    });
    metadata["config"] = "[model]\nencoder_hidden = [5]\nlatent = 3\ndecoder_hidden = [7]\n";
    write_safetensors(folder / "old", tensors, metadata);
    const Checkpoint loaded = load_checkpoint(folder / "old");
    EXPECT_EQ(loaded.state.parameters, saved.state.parameters);
    EXPECT_EQ(loaded.state.moments, saved.state.moments);
    EXPECT_EQ(loaded.epoch_totals.skipped.count, 0U);
    EXPECT_EQ(loaded.epoch_totals.losses.examples, 11U);
}

TEST(Checkpoint, EveryTruncationIsAnError) {
    const TemporaryFolder folder;
    save_checkpoint(folder / "c", small_checkpoint());
    const std::string whole = read_file(folder / "c");
    for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 97) {
        put_file(folder / "cut", whole.substr(0, size));
        EXPECT_TRUE(contains(error_of(folder / "cut"), "cut")) << size;
    }
    put_file(folder / "cut", whole.substr(0, whole.size() - 1));
    EXPECT_TRUE(contains(error_of(folder / "cut"), "cut"));
}

TEST(Checkpoint, WhatDoesNotFitItsSettingsIsAnError) {
    const TemporaryFolder folder;
    const auto path = folder / "c";
    const auto error_with = [&](const std::string& from, const std::string& to) {
        save_checkpoint(path, small_checkpoint());
        replace_in_file(path, from, to);
        return error_of(path);
    };
    EXPECT_TRUE(contains(error_with("encoder_hidden = [5]", "encoder_hidden = [6]"),
                         "tensor encoder.0.weight is [5, 6], but its settings imply [6, 6]"));
    EXPECT_TRUE(contains(error_with("2x3x1", "2x4x1"), "encoder.0.weight"));
    EXPECT_TRUE(contains(error_with("2x3x1", "0x3x1"), "\"image\" is \"0x3x1\""));
    EXPECT_TRUE(contains(error_with("2x3x1", "twice"), "\"image\" is \"twice\""));
    EXPECT_TRUE(contains(error_with("latent = 3", "latent = 0"), "model.latent must be"));
    EXPECT_TRUE(contains(error_with("decoder.out.bias", "decoder.out.bits"), "decoder.out.b"));
    EXPECT_TRUE(contains(error_with("\"format_version\":\"1\"", "\"format_version\":\"9\""),
                         "format version 9"));
    EXPECT_TRUE(contains(error_with("vae-checkpoint", "vae-checkpainu"), "not a checkpoint"));
    EXPECT_TRUE(contains(error_with("train_examples", "train_excuses0"), "train_examples"));
    EXPECT_TRUE(contains(error_with("\"step\":\"42", "\"step\":\"x2"), "\"step\""));
}

TEST(Checkpoint, OtherSafetensorsAreRefused) {
    const TemporaryFolder folder;
    const std::vector<float> values = {1, 2};
    write_safetensors(folder / "other", {{"t", {2}, std::span<const float>(values)}}, {});
    EXPECT_TRUE(contains(error_of(folder / "other"), "not a checkpoint of this program"));
    EXPECT_TRUE(contains(error_of(folder / "nothing"), "nothing"));
}

}  // namespace
}  // namespace vae
