#include "host/train.h"

#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/stop_signal.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;
using testing::TemporaryFolder;

// 6000 examples in batches of 1100: five whole steps and a ragged one an epoch.
Config small_config() {
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

bool never() {
    return false;
}

// A run of `config` in `folder`, from the folder's checkpoint when it has one.
TrainResult train_in(const RunFolder& folder, const Config& config, const Splits& splits,
                     const std::function<bool()>& should_stop = never) {
    Checkpoint start = initial_checkpoint(config, splits);
    if (std::filesystem::exists(folder.checkpoint())) start = load_checkpoint(folder.checkpoint());
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits);
    Progress silent(nullptr, false);
    return Trainer(config, splits, *backend, folder, silent).run(start, should_stop);
}

std::vector<nlohmann::json> metrics_of(const RunFolder& folder) {
    std::vector<nlohmann::json> rows;
    std::istringstream in(read_file(folder.metrics()));
    for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
}

void expect_same_state(const RunFolder& a, const RunFolder& b) {
    const Checkpoint one = load_checkpoint(a.checkpoint());
    const Checkpoint other = load_checkpoint(b.checkpoint());
    EXPECT_EQ(one.state.step, other.state.step);
    EXPECT_EQ(one.state.parameters, other.state.parameters);
    EXPECT_EQ(one.state.adam_m, other.state.adam_m);
    EXPECT_EQ(one.state.adam_v, other.state.adam_v);
}

class TrainTest : public ::testing::Test {
  protected:
    TrainTest() : splits_(load_splits(small_config().data, Likelihood::bernoulli)) {
        for (const auto* run : {&whole_, &other_}) std::filesystem::create_directory(run->root);
    }

    TemporaryFolder folder_;
    RunFolder whole_{folder_ / "whole"};
    RunFolder other_{folder_ / "other"};
    Splits splits_;
};

TEST_F(TrainTest, MetricsHaveARowASplitAnEpoch) {
    Config config = small_config();
    config.train.beta = 0.5;
    const TrainResult result = train_in(whole_, config, splits_);
    EXPECT_EQ(result.step, 18U);
    EXPECT_FALSE(result.was_stopped);
    const auto rows = metrics_of(whole_);
    ASSERT_EQ(rows.size(), 6U);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto& row = rows[i];
        EXPECT_EQ(row["epoch"], i / 2 + 1);
        EXPECT_EQ(row["step"], 6 * (i / 2 + 1));
        EXPECT_EQ(row["split"], i % 2 == 0 ? "train" : "test");
        EXPECT_EQ(row["examples"], i % 2 == 0 ? 6000 : 1000);
        EXPECT_EQ(row["beta"], 0.5);
        EXPECT_GT(row["examples_per_second"], 0);
        EXPECT_GT(row["seconds"], 0);
        const double recon = row["recon"];
        const double kl = row["kl"];
        EXPECT_NEAR(row["elbo"], -(recon + kl), 1e-12);  // rounding of sums of tens
        EXPECT_NEAR(row["loss"], recon + 0.5 * kl, 1e-9);
    }
    EXPECT_LT(rows[4]["loss"], rows[0]["loss"]);
}

TEST_F(TrainTest, SameSeedSameBits) {
    train_in(whole_, small_config(), splits_);
    train_in(other_, small_config(), splits_);
    expect_same_state(whole_, other_);
    EXPECT_EQ(metrics_of(whole_)[5]["loss"], metrics_of(other_)[5]["loss"]);
}

// Stopped in the middle of an epoch, at its end, and at the run's end, then gone on with.
TEST_F(TrainTest, ResumeIsExact) {
    train_in(whole_, small_config(), splits_);
    for (const std::uint64_t steps : {4, 6, 13, 17}) {
        Config part = small_config();
        part.train.steps = steps;
        train_in(other_, part, splits_);
        EXPECT_EQ(load_checkpoint(other_.checkpoint()).state.step, steps);
    }
    train_in(other_, small_config(), splits_);
    expect_same_state(whole_, other_);

    const auto wanted = metrics_of(whole_);
    const auto rows = metrics_of(other_);
    for (const std::size_t back : {1U, 2U}) {
        const auto& want = wanted[wanted.size() - back];
        const auto& row = rows[rows.size() - back];
        EXPECT_EQ(row["examples"], want["examples"]);
        // Sums of the epoch's parts, each rounded on its own.
        EXPECT_NEAR(row["loss"], want["loss"], 1e-12 * static_cast<double>(want["loss"]));
    }
}

TEST_F(TrainTest, AStopSavesAndCanBeResumed) {
    Config config = small_config();
    config.train.batch = 8;  // many chunks
    config.train.epochs = 1;
    int asked = 0;
    const auto soon = [&] { return ++asked == 1; };
    const TrainResult stopped = train_in(other_, config, splits_, soon);
    EXPECT_TRUE(stopped.was_stopped);
    EXPECT_GT(stopped.step, 0U);
    EXPECT_LT(stopped.step, 750U);
    EXPECT_EQ(load_checkpoint(other_.checkpoint()).state.step, stopped.step);
    EXPECT_TRUE(read_file(other_.metrics()).empty());
    train_in(other_, config, splits_);
    train_in(whole_, config, splits_);
    expect_same_state(whole_, other_);
    EXPECT_EQ(metrics_of(whole_)[0]["loss"], metrics_of(other_)[0]["loss"]);
}

TEST_F(TrainTest, ALossThatIsNotFiniteStopsTheRunAndKeepsTheCheckpoint) {
    Config config = small_config();
    train_in(other_, config, splits_);
    const std::string before = read_file(other_.checkpoint());
    config.train.epochs = 4;
    config.train.learning_rate = 1e38;
    const std::string message = message_of<RunError>([&] { train_in(other_, config, splits_); });
    EXPECT_TRUE(contains(message, "not finite in steps 19 to 24")) << message;
    for (const char* suspect : {"train.learning_rate (1e+38)", "train.beta (1", "the data"}) {
        EXPECT_TRUE(contains(message, suspect)) << message;
    }
    EXPECT_EQ(read_file(other_.checkpoint()), before);
    EXPECT_EQ(metrics_of(other_).size(), 6U);
}

TEST_F(TrainTest, ResumeWithOtherSettingsOrDataIsRefused) {
    const Config config = small_config();
    const Checkpoint checkpoint = initial_checkpoint(config, splits_);
    Config longer = config;
    longer.train.epochs = 30;
    longer.train.steps = 99;
    check_resumable(checkpoint, longer, splits_);
    Config other = config;
    other.train.learning_rate = 0.5;
    EXPECT_TRUE(
        contains(message_of<InputError>([&] { check_resumable(checkpoint, other, splits_); }),
                 "train.learning_rate = 0.001, not 0.5"));
    Splits fewer = splits_;
    fewer.train.size = 10;
    EXPECT_TRUE(
        contains(message_of<InputError>([&] { check_resumable(checkpoint, config, fewer); }),
                 "now has 10 training examples"));
}

TEST(TotalSteps, CountsRaggedBatchesAndRefusesTooMany) {
    TrainConfig train;
    train.batch = 128;
    train.epochs = 10;
    EXPECT_EQ(total_steps(train, 60000), 4690U);
    EXPECT_EQ(total_steps(train, 1), 10U);
    train.steps = 7;
    EXPECT_EQ(total_steps(train, 60000), 7U);
    EXPECT_NE(message_of<InputError>([&] { total_steps(train, 0); }), "");
    train.steps = 0;
    train.batch = 1;
    train.epochs = 1'000'000;
    EXPECT_NE(message_of<InputError>([&] { total_steps(train, 60000); }), "");
}

TEST(Metrics, OnlyWholeRowsUpToAStepAreKept) {
    const TemporaryFolder folder;
    const auto path = folder / "metrics.jsonl";
    EXPECT_TRUE(metrics_lines_until(path, 9).empty());
    testing::put_file(path, "{\"step\":1}\n{\"step\":2}\nnoise\n{\"step\":3}\n{\"step\":2,\"ep");
    EXPECT_EQ(metrics_lines_until(path, 2),
              (std::vector<std::string>{"{\"step\":1}", "{\"step\":2}"}));
}

class RunFolderTest : public ::testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path out_ = folder_ / "a" / "b";
};

TEST_F(RunFolderTest, ARunThatCannotStartLeavesNothing) {
    {
        const NewRunFolder made(out_ / "", "synthetic:bars");
        write_file_atomically(made.folder().config(), "x");
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "a"));
    std::filesystem::create_directories(out_);
    {
        const NewRunFolder made(out_, "synthetic:bars");
        write_file_atomically(made.folder().config(), "x");
        write_file_atomically(made.folder().checkpoint(), "x");
    }
    EXPECT_TRUE(std::filesystem::is_directory(out_));
    EXPECT_TRUE(std::filesystem::is_empty(out_));
    {
        NewRunFolder made(out_, "synthetic:bars");
        write_file_atomically(made.folder().config(), "x");
        made.keep();
    }
    EXPECT_TRUE(std::filesystem::exists(out_ / "config.toml"));
}

TEST_F(RunFolderTest, IsLockedOnce) {
    const auto lock_again = [this] { const RunLock lock(out_); };
    std::filesystem::create_directories(out_);
    {
        const NewRunFolder made(out_, "synthetic:bars");
        EXPECT_TRUE(contains(message_of<InputError>(lock_again), "in use"));
    }
    lock_again();
    EXPECT_TRUE(std::filesystem::is_empty(out_));
}

// A folder that may not be entered fails in the same way; root may enter all.
TEST_F(RunFolderTest, AFailureToLookIsNotAMissingRun) {
    std::filesystem::create_symlink("loop", folder_ / "loop");
    const std::string message =
        message_of<InputError>([this] { find_checkpoint(folder_ / "loop"); });
    EXPECT_TRUE(contains(message, "symbolic links")) << message;
    EXPECT_TRUE(contains(message_of<InputError>([this] { find_checkpoint(out_); }),
                         "there is no such run folder"));
}

TEST(StopSignal, CatchesEachSignalOnceAndLeavesIgnoredOnesAlone) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        const StopSignal stop;
        EXPECT_FALSE(stop.was_raised());
        raise(signal);
        EXPECT_TRUE(stop.was_raised()) << signal;
    }
    const auto old = std::signal(SIGHUP, SIG_IGN);
    {
        const StopSignal stop;
        raise(SIGHUP);
        EXPECT_FALSE(stop.was_raised());
    }
    EXPECT_EQ(std::signal(SIGHUP, old), SIG_IGN);
}

}  // namespace
}  // namespace vae
