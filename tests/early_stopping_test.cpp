// Runs that end for want of a better epoch, and the checkpoint of their best one.
#include "host/early_stopping.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "host/error.h"
#include "host/examples.h"
#include "tests/error_message.h"
#include "tests/train_fixture.h"

namespace vae {
namespace {

using testing::contains;
using testing::expect_same_state;
using testing::message_of;
using testing::metrics_of;
using testing::small_config;
using testing::train_in;

using EarlyStoppingTest = testing::TrainTest;

// The parameters stay where they are, so that no epoch is better than the first.
Config stale_config() {
    Config config = small_config();
    config.train.learning_rate = 1e-30;
    config.train.epochs = 9;
    config.train.patience = 3;
    return config;
}

TEST_F(EarlyStoppingTest, TheRunEndsAfterEpochsWithoutABetterOne) {
    const TrainResult result = train_in(whole_, stale_config(), splits_);
    EXPECT_TRUE(result.stopped_early);
    EXPECT_FALSE(result.was_stopped);
    EXPECT_EQ(result.step, 4U * 6U);
    EXPECT_EQ(result.early_stopping.best_epoch, 1U);
    EXPECT_EQ(result.early_stopping.stale_epochs, 3U);
    EXPECT_EQ(-result.early_stopping.best_elbo,
              -static_cast<double>(metrics_of(whole_)[1]["elbo"]));
    EXPECT_EQ(metrics_of(whole_).size(), 8U);
    EXPECT_EQ(load_checkpoint(whole_.checkpoint()).early_stopping.stale_epochs, 3U);
    EXPECT_EQ(load_checkpoint(whole_.best()).state.step, 6U);
    EXPECT_EQ(load_checkpoint(whole_.best()).early_stopping.stale_epochs, 0U);
}

TEST_F(EarlyStoppingTest, ARunThatEndsByItselfDidNotStopEarly) {
    Config config = stale_config();
    config.train.epochs = 4;
    EXPECT_FALSE(train_in(whole_, config, splits_).stopped_early);
    config = small_config();
    train_in(other_, config, splits_);
    EXPECT_FALSE(std::filesystem::exists(other_.best()));
}

// Epochs 1 to 3 end while beta still rises.
TEST_F(EarlyStoppingTest, EpochsOfTheFirstWarmUpOfBetaAreNotStale) {
    Config config = stale_config();
    config.train.patience = 2;
    config.train.beta_schedule = BetaSchedule::linear;
    config.train.beta_epochs = 3;
    EXPECT_EQ(train_in(whole_, config, splits_).step, 5U * 6U);
    config.train.beta_schedule =
        BetaSchedule::cyclic;  // rises in one epoch and a half of each three
    EXPECT_EQ(train_in(other_, config, splits_).step, 3U * 6U);
}

// Of a run that grows worse: what the file holds is what the metrics say of its epoch.
TEST_F(EarlyStoppingTest, TheBestCheckpointIsThatOfTheBestEpoch) {
    keep_first(splits_.train, 40);
    Config config = small_config();
    config.train.batch = 10;
    config.train.epochs = 400;
    config.train.learning_rate = 0.02;
    config.train.patience = 20;
    const TrainResult result = train_in(whole_, config, splits_);
    ASSERT_TRUE(result.stopped_early);
    const Checkpoint best = load_checkpoint(whole_.best());
    EXPECT_GT(result.early_stopping.best_epoch, 1U);
    EXPECT_EQ(best.state.step, 4U * result.early_stopping.best_epoch);
    EXPECT_EQ(result.step, best.state.step + 4U * 20U);
    const auto rows = metrics_of(whole_);
    double largest = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 1; i < rows.size(); i += 2) {
        largest = std::max(largest, static_cast<double>(rows[i]["elbo"]));
    }
    EXPECT_EQ(result.early_stopping.best_elbo, largest);
    const auto backend = make_cpu_backend(config, best.layout());
    backend->set_data(splits_);
    backend->set_state(best.state);
    EXPECT_EQ(means(backend->evaluate(Split::test, 1)).elbo, largest);
}

TEST_F(EarlyStoppingTest, ResumeOfEarlyStoppingIsExact) {
    Config config = stale_config();
    config.train.batch = 8;  // many chunks
    train_in(whole_, config, splits_);
    TrainResult result;
    int stops = -1;
    do {
        result = train_in(other_, config, splits_, [] { return true; });
        ++stops;
    } while (result.was_stopped);
    EXPECT_GT(stops, 4);
    EXPECT_TRUE(result.stopped_early);
    expect_same_state(whole_, other_);
    EXPECT_EQ(load_checkpoint(whole_.best()).state.parameters,
              load_checkpoint(other_.best()).state.parameters);
    // With more patience it goes on.
    Config more = config;
    more.train.patience = 5;
    const Checkpoint start = load_checkpoint(other_.checkpoint());
    check_resumable(start, more, splits_);
    EXPECT_EQ(train_in(other_, more, splits_).step, 6U * 750U);
}

// A run that is told to end within an epoch, and to go on, counts the epochs that it would have.
TEST_F(EarlyStoppingTest, TheEndOfARunWithinAnEpochIsNoEpoch) {
    Config config = stale_config();
    train_in(whole_, config, splits_);
    for (const std::uint64_t steps : {9, 14, 16}) {
        Config part = config;
        part.train.steps = steps;
        EXPECT_FALSE(train_in(other_, part, splits_).stopped_early);
    }
    EXPECT_EQ(train_in(other_, config, splits_).step, 4U * 6U);
}

TEST_F(EarlyStoppingTest, EarlyStoppingNeedsAHeldOutSplit) {
    check_held_out(stale_config(), splits_);
    splits_.test.size = 0;
    check_held_out(small_config(), splits_);
    EXPECT_TRUE(contains(message_of<InputError>([&] { check_held_out(stale_config(), splits_); }),
                         "train.patience = 3: synthetic:bars has no held-out examples to stop by"));
}

}  // namespace
}  // namespace vae
