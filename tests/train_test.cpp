#include "host/train.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/shuffle.h"
#include "host/stop_signal.h"
#include "tests/error_message.h"
#include "tests/model_fixtures.h"
#include "tests/temporary_folder.h"
#include "tests/train_fixture.h"

namespace vae {
namespace {

using testing::contains;
using testing::expect_same_state;
using testing::message_of;
using testing::metrics_of;
using testing::never;
using testing::small_config;
using testing::TemporaryFolder;
using testing::train_in;
using testing::TrainTest;

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

// The first step's gradient is still finite, and the update that it makes breaks the network.
TEST_F(TrainTest, ANetworkThatBreaksStopsTheRunAndKeepsTheCheckpoint) {
    Config config = small_config();
    train_in(other_, config, splits_);
    const std::string before = read_file(other_.checkpoint());
    config.train.epochs = 4;
    config.train.learning_rate = 1e38;
    const std::string message = message_of<RunError>([&] { train_in(other_, config, splits_); });
    EXPECT_TRUE(contains(message, "the loss of the test split is not finite after step 24"))
        << message;
    for (const char* suspect : {"train.learning_rate (1e+38)", "train.beta (1", "the data"}) {
        EXPECT_TRUE(contains(message, suspect)) << message;
    }
    EXPECT_EQ(read_file(other_.checkpoint()), before);
    EXPECT_EQ(metrics_of(other_).size(), 6U);
}

// What a trainer says to people.
class Spoken {
  public:
    Spoken() : stream_(open_memstream(&text_, &size_)) {}
    ~Spoken() {
        std::fclose(stream_);
        std::free(text_);
    }
    Spoken(const Spoken&) = delete;
    Spoken& operator=(const Spoken&) = delete;
    Spoken(Spoken&&) = delete;
    Spoken& operator=(Spoken&&) = delete;

    std::FILE* stream() const { return stream_; }
    std::string text() const {
        std::fflush(stream_);
        return {text_, size_};
    }

  private:
    char* text_ = nullptr;
    std::size_t size_ = 0;
    std::FILE* stream_;
};

// The step of an epoch, from 0, that has the training example.
std::size_t step_of(const Config& config, std::uint32_t epoch, std::uint32_t example) {
    const auto rows = shuffled_rows(config.train.seed, epoch, 6000);
    const auto place = std::find(rows.begin(), rows.end(), example) - rows.begin();
    return static_cast<std::size_t>(place) / config.train.batch;
}

TEST_F(TrainTest, AStepThatIsNotFiniteIsSkippedAndTold) {
    const Config config = small_config();
    splits_.train = test::with_nan(splits_.train, 4321);
    const Spoken spoken;
    Progress progress(spoken.stream(), false);
    train_in(whole_, config, splits_, never, &progress);
    const auto rows = metrics_of(whole_);
    ASSERT_EQ(rows.size(), 6U);
    for (std::uint32_t epoch = 0; epoch < 3; ++epoch) {
        const std::size_t step = step_of(config, epoch, 4321);
        const auto& trained = rows[2 * epoch];
        EXPECT_EQ(trained["skipped"], 1);
        EXPECT_EQ(trained["examples"], 6000 - (step == 5 ? 500 : 1100));
        EXPECT_TRUE(std::isfinite(trained["loss"].get<double>()));
        EXPECT_FALSE(rows[2 * epoch + 1].contains("skipped"));
        const std::string line =
            "warning: skipped 1 of 6 steps: the gradient of encoder.0.weight was not finite at "
            "step " +
            std::to_string(6 * epoch + step + 1) + '\n';
        EXPECT_TRUE(contains(spoken.text(), line)) << line << spoken.text();
    }
    EXPECT_LT(rows[4]["loss"], rows[0]["loss"]);

    // Stopped within the first epoch: what was skipped before is still told at its end.
    for (const std::uint64_t steps : {4, 6}) {
        Config part = config;
        part.train.steps = steps;
        const std::size_t step = step_of(config, 0, 4321);
        train_in(other_, part, splits_);
        const auto parts = metrics_of(other_);
        EXPECT_EQ(parts.at(parts.size() - 2)["skipped"], step < steps ? 1 : 0);
    }
    train_in(other_, config, splits_);
    expect_same_state(whole_, other_);
}

// A network so large that the trainer looks after each step: a step that is lost is one of six.
TEST_F(TrainTest, ALostStepThatIsLookedAtAloneDoesNotEndTheRun) {
    Config config = small_config();
    config.model.encoder_hidden = {13000};
    config.train.epochs = 1;
    const ParameterLayout layout(config.model, splits_.train.shape.pixels());
    ASSERT_EQ(steps_in_chunk(*make_cpu_backend(config, layout), layout, config.train.batch), 1U);
    splits_.train = test::with_nan(splits_.train, 4321);
    train_in(other_, config, splits_);
    EXPECT_EQ(metrics_of(other_).at(0)["skipped"], 1);
}

TEST_F(TrainTest, WhenNoStepCanBeTakenTheRunStopsAndKeepsTheCheckpoint) {
    Config config = small_config();
    train_in(other_, config, splits_);
    const std::string before = read_file(other_.checkpoint());
    config.train.epochs = 4;
    for (std::size_t i = 0; i < 6000; i += 100) splits_.train = test::with_nan(splits_.train, i);
    const std::string message = message_of<RunError>([&] { train_in(other_, config, splits_); });
    EXPECT_TRUE(contains(message,
                         "no step could be taken: the gradient of encoder.0.weight is not finite "
                         "in steps 19 to 24;"))
        << message;
    EXPECT_EQ(read_file(other_.checkpoint()), before);
    EXPECT_EQ(metrics_of(other_).size(), 6U);
}

// Of each optimiser with all that it keeps.
TEST_F(TrainTest, ResumeIsExactHoweverOneTrains) {
    for (const auto& [name, train] : test::ways_to_train()) {
        SCOPED_TRACE(name);
        Config config = small_config();
        const TrainConfig usual = config.train;
        config.train = train;
        config.train.batch = usual.batch;
        config.train.epochs = 2;
        for (const auto* run : {&whole_, &other_}) {
            std::filesystem::remove_all(run->root);
            std::filesystem::create_directory(run->root);
        }
        train_in(whole_, config, splits_);
        Config part = config;
        part.train.steps = 4;
        train_in(other_, part, splits_);
        train_in(other_, config, splits_);
        expect_same_state(whole_, other_);
        const TrainingState state = load_checkpoint(whole_.checkpoint()).state;
        EXPECT_EQ(state.moments.size(), moment_names(train).size());
        EXPECT_EQ(state.ema.empty(), train.ema == 0);
        EXPECT_NE(state.ema, state.parameters);
    }
}

TEST_F(TrainTest, ResumeWithOtherSettingsOrDataIsRefused) {
    const Config config = small_config();
    const Checkpoint checkpoint = initial_checkpoint(config, splits_);
    Config longer = config;
    longer.train.epochs = 30;
    longer.train.steps = 99;
    longer.train.graph_steps = 3;
    longer.data.placement = DataPlacement::streamed;
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

TEST_F(TrainTest, OnlyThePathOfTheDataMayDiffer) {
    const auto refusal = [this](const std::string& from, const std::string& to) {
        Config config = small_config();
        config.data.source = from;
        const Checkpoint checkpoint = initial_checkpoint(config, splits_);
        config.data.source = to;
        return message_of<InputError>([&] { check_resumable(checkpoint, config, splits_); });
    };
    EXPECT_EQ(refusal("/old/x.npy", "/new/x.npy"), "");
    EXPECT_EQ(refusal("mnist:/old", "mnist:/new"), "");
    EXPECT_TRUE(contains(refusal("mnist:/old", "/old"), "data.source"));
    EXPECT_TRUE(contains(refusal("/old/x.npy", "fashion-mnist"), "data.source"));
    EXPECT_TRUE(contains(refusal("synthetic:bars", "/new/x.npy"), "data.source"));
}

TEST_F(TrainTest, WithoutAHeldOutSplitOnlyTheTrainingIsReported) {
    splits_.test.size = 0;
    splits_.test.values = std::vector<std::uint8_t>();
    train_in(whole_, small_config(), splits_);
    const auto rows = metrics_of(whole_);
    ASSERT_EQ(rows.size(), 3U);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        EXPECT_EQ(rows[i]["epoch"], i + 1);
        EXPECT_EQ(rows[i]["split"], "train");
        EXPECT_EQ(rows[i]["examples"], 6000);
    }
    EXPECT_EQ(load_checkpoint(whole_.checkpoint()).state.step, 18U);
}

TEST_F(TrainTest, AMomentThatIsNotFiniteIsNotSaved) {
    const Config config = small_config();
    Checkpoint start = initial_checkpoint(config, splits_);
    start.state.moments[1][0] = std::numeric_limits<float>::infinity();  // its parameter stays
    save_checkpoint(whole_.checkpoint(), start);
    const std::string before = read_file(whole_.checkpoint());
    const std::string message =
        message_of<RunError>([&] { train_in(whole_, config, splits_, [] { return true; }); });
    EXPECT_TRUE(contains(message, "a moment of the optimiser is not finite after step")) << message;
    EXPECT_EQ(read_file(whole_.checkpoint()), before);
}

TEST_F(TrainTest, AParameterThatIsNotFiniteIsNotSaved) {
    Config config = small_config();
    config.model.encoder_hidden = {2048};  // so that a chunk is one step of an epoch of two
    config.model.decoder_hidden = {1};
    config.train.batch = 5999;
    config.train.learning_rate = 1e39;  // infinite as a float, and so is what the update makes
    save_checkpoint(whole_.checkpoint(), initial_checkpoint(config, splits_));
    const std::string before = read_file(whole_.checkpoint());
    const std::string message =
        message_of<RunError>([&] { train_in(whole_, config, splits_, [] { return true; }); });
    EXPECT_TRUE(contains(message, "a parameter is not finite after step 1;")) << message;
    EXPECT_TRUE(contains(message, "train.learning_rate (1e+39)")) << message;
    EXPECT_EQ(read_file(whole_.checkpoint()), before);
}

TEST_F(TrainTest, TheStartTakesNoMemoryDuringTheRun) {
    const Config config = small_config();
    Checkpoint start = initial_checkpoint(config, splits_);
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits_);
    Progress silent(nullptr, false);
    bool was_asked = false;
    const auto look = [&] {
        was_asked = true;
        EXPECT_EQ(start.state.parameters.capacity(), 0U);
        EXPECT_EQ(start.state.moments.capacity(), 0U);
        EXPECT_EQ(start.state.ema.capacity(), 0U);
        return false;
    };
    Trainer(config, splits_, *backend, whole_, silent).run(std::move(start), look);
    EXPECT_TRUE(was_asked);
}

// Threads of the backend that are there already go on; a stack that large cannot be had for
// another.
TEST_F(TrainTest, WithoutAThreadTheRowsAreSortedAllTheSame) {
    train_in(whole_, small_config(), splits_);
    pthread_attr_t usual;
    ASSERT_EQ(pthread_getattr_default_np(&usual), 0);
    pthread_attr_t huge;
    ASSERT_EQ(pthread_attr_init(&huge), 0);
    ASSERT_EQ(pthread_attr_setstacksize(&huge, std::size_t{1} << 60), 0);
    ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
    EXPECT_THROW(std::thread([] {}).join(), std::system_error);
    EXPECT_NO_THROW(train_in(other_, small_config(), splits_));
    EXPECT_EQ(pthread_setattr_default_np(&usual), 0);
    pthread_attr_destroy(&huge);
    pthread_attr_destroy(&usual);
    expect_same_state(whole_, other_);
}

// A stream that looks at the checkpoint whenever something is written to it.
class WatchingStream {
  public:
    explicit WatchingStream(const RunFolder& folder) : folder_(folder) {
        stream_.reset(fopencookie(
            this, "w", {.read = nullptr, .write = look, .seek = nullptr, .close = nullptr}));
    }

    std::FILE* get() const { return stream_.get(); }
    const std::vector<std::uint64_t>& steps() const { return steps_; }

  private:
    static ssize_t look(void* self, const char*, std::size_t size) {
        auto* watching = static_cast<WatchingStream*>(self);
        watching->steps_.push_back(load_checkpoint(watching->folder_.checkpoint()).state.step);
        return static_cast<ssize_t>(size);
    }

    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    const RunFolder& folder_;
    std::vector<std::uint64_t> steps_;
    std::unique_ptr<std::FILE, Close> stream_;
};

TEST_F(TrainTest, AnEpochIsSavedBeforeItIsReported) {
    const Config config = small_config();
    Checkpoint start = initial_checkpoint(config, splits_);
    save_checkpoint(whole_.checkpoint(), start);
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits_);
    const WatchingStream stream(whole_);
    Progress progress(stream.get(), false);
    Trainer(config, splits_, *backend, whole_, progress).run(std::move(start), never);
    EXPECT_EQ(stream.steps(), (std::vector<std::uint64_t>{6, 12, 18}));
}

TEST(StepsPerEpoch, CountsARaggedStepAndLargeNumbers) {
    EXPECT_EQ(steps_per_epoch(60000, 128), 469U);
    EXPECT_EQ(steps_per_epoch(256, 128), 2U);
    EXPECT_EQ(steps_per_epoch(1, 4'294'967'295U), 1U);
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
