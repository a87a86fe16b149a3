// Learning rate and beta of every step against their closed forms, and runs that follow them.
#include "host/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <numbers>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/settings.h"
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

using ScheduledRun = testing::TrainTest;

constexpr std::size_t kExamples = 95;  // 10 steps an epoch, the last one ragged

TrainConfig ten_steps_an_epoch() {
    TrainConfig train;
    train.batch = 10;
    train.epochs = 20;
    train.learning_rate = 0.25;
    train.beta = 3;
    return train;
}

void expect_learning_rates(const Schedule& schedule,
                           const std::vector<std::pair<std::uint64_t, double>>& wanted) {
    for (const auto& [step, rate] : wanted) {
        EXPECT_NEAR(schedule.at(step).learning_rate, rate, 1e-15) << step;
        EXPECT_EQ(schedule.at(step).beta, 3) << step;
    }
}

void expect_betas(const Schedule& schedule,
                  const std::vector<std::pair<std::uint64_t, double>>& wanted) {
    for (const auto& [step, beta] : wanted) {
        EXPECT_NEAR(schedule.at(step).beta, beta, 1e-14) << step;
        EXPECT_EQ(schedule.at(step).learning_rate, 0.25) << step;
    }
}

TEST(Schedule, CountsSteps) {
    TrainConfig train = ten_steps_an_epoch();
    EXPECT_EQ(Schedule(train, kExamples).steps_per_epoch(), 10U);
    EXPECT_EQ(Schedule(train, kExamples).total_steps(), 200U);
    train.steps = 7;
    EXPECT_EQ(Schedule(train, kExamples).total_steps(), 7U);
    EXPECT_NE(message_of<InputError>([&] { Schedule(train, 0); }), "");
}

TEST(Schedule, ConstantIsConstant) {
    const Schedule schedule(ten_steps_an_epoch(), kExamples);
    expect_learning_rates(schedule, {{0, .25}, {99, .25}, {199, .25}, {100000, .25}});
    EXPECT_EQ(schedule.beta_warmup_steps(), 0U);
}

TEST(Schedule, StepMultipliesEverySoManyEpochs) {
    TrainConfig train = ten_steps_an_epoch();
    train.schedule = LearningRateSchedule::step;
    train.schedule_factor = 0.5;
    train.schedule_epochs = 3;
    expect_learning_rates(Schedule(train, kExamples),
                          {{0, .25}, {29, .25}, {30, .125}, {59, .125}, {60, .0625}});
}

TEST(Schedule, CosineFallsToItsEnd) {
    TrainConfig train = ten_steps_an_epoch();
    train.schedule = LearningRateSchedule::cosine;
    train.learning_rate_final = 0.05;
    const double first_step = .05 + .1 * (1 + std::cos(std::numbers::pi / 200));
    expect_learning_rates(
        Schedule(train, kExamples),
        {{0, .25}, {1, first_step}, {100, .15}, {200, .05}, {201, .05}, {1000, .05}});
}

// 3^i passes at lr·10^(−i/7): the stages begin with the passes 0, 1, 4, 13, 40, 121, 364, 1093.
TEST(Schedule, BurdaHasEightStages) {
    TrainConfig train = ten_steps_an_epoch();
    train.schedule = LearningRateSchedule::burda;
    train.epochs = 3280;
    const Schedule schedule(train, kExamples);
    const std::uint64_t first_pass[] = {0, 1, 4, 13, 40, 121, 364, 1093, 3280};
    for (std::uint64_t i = 0; i < 8; ++i) {
        const double rate = .25 * std::pow(10, -static_cast<double>(i) / 7);
        expect_learning_rates(schedule,
                              {{10 * first_pass[i], rate}, {10 * first_pass[i + 1] - 1, rate}});
    }
    expect_learning_rates(schedule, {{40000, .025}});  // stays where it ended
}

TEST(Schedule, ARunLongerThanBurdasIsRefused) {
    TrainConfig train = ten_steps_an_epoch();
    train.schedule = LearningRateSchedule::burda;
    train.epochs = 3281;
    EXPECT_TRUE(contains(message_of<InputError>([&] { Schedule(train, kExamples); }),
                         "ends after 3280 passes, which are 32800 steps here, but 32810"));
    train.epochs = 3280;
    EXPECT_EQ(message_of<InputError>([&] { Schedule(train, kExamples); }), "");
    train.steps = 32801;
    EXPECT_TRUE(contains(message_of<InputError>([&] { Schedule(train, kExamples); }), "32801"));
}

TEST(Schedule, WarmUpIsAFactorOfAnySchedule) {
    TrainConfig train = ten_steps_an_epoch();
    train.warmup_steps = 20;
    expect_learning_rates(Schedule(train, kExamples),
                          {{0, .25 / 20}, {1, .25 / 10}, {18, .25 * .95}, {19, .25}, {20, .25}});
    train.schedule = LearningRateSchedule::step;
    train.schedule_epochs = 1;
    expect_learning_rates(Schedule(train, kExamples),
                          {{9, .125}, {10, .025 * 11 / 20}, {19, .025}, {20, .0025}});
}

TEST(Schedule, LinearBetaRisesWithinTheEpochToo) {
    TrainConfig train = ten_steps_an_epoch();
    train.beta_schedule = BetaSchedule::linear;
    train.beta_epochs = 4;
    const Schedule schedule(train, kExamples);
    expect_betas(schedule, {{0, 0}, {1, 3. / 40}, {10, .75}, {39, 3 * 39. / 40}, {40, 3}, {99, 3}});
    EXPECT_EQ(schedule.beta_warmup_steps(), 40U);
}

TEST(Schedule, CyclicBetaRisesAgainAndAgain) {
    TrainConfig train = ten_steps_an_epoch();
    train.beta_schedule = BetaSchedule::cyclic;
    train.beta_epochs = 4;
    train.beta_ramp = 0.25;
    const Schedule schedule(train, kExamples);
    for (const std::uint64_t cycle : {0U, 1U, 7U}) {
        const std::uint64_t at = 40 * cycle;
        expect_betas(schedule, {{at, 0}, {at + 1, .3}, {at + 5, 1.5}, {at + 10, 3}, {at + 39, 3}});
    }
    EXPECT_EQ(schedule.beta_warmup_steps(), 10U);
    train.beta_ramp = 0.01;  // less than a step
    EXPECT_EQ(Schedule(train, kExamples).beta_warmup_steps(), 1U);
}

TEST(Schedule, StepsAreThoseOfAt) {
    TrainConfig train = ten_steps_an_epoch();
    train.schedule = LearningRateSchedule::cosine;
    train.beta_schedule = BetaSchedule::linear;
    const Schedule schedule(train, kExamples);
    const auto steps = schedule.steps(17, 5);
    ASSERT_EQ(steps.size(), 5U);
    for (std::size_t i = 0; i < steps.size(); ++i) {
        EXPECT_EQ(steps[i].learning_rate, schedule.at(17 + i).learning_rate);
        EXPECT_EQ(steps[i].beta, schedule.at(17 + i).beta);
    }
    EXPECT_NE(steps[0].learning_rate, steps[1].learning_rate);
    EXPECT_NE(steps[0].beta, steps[1].beta);
}

TEST(Schedule, SettingsThatContradictEachOtherAreRefused) {
    Config config;
    config.train.schedule = LearningRateSchedule::cosine;
    config.train.learning_rate_final = 0.1;
    EXPECT_TRUE(contains(message_of<InputError>([&] { check_config(config); }),
                         "train.learning_rate_final (0.1) must be at most train.learning_rate"));
    config.train.learning_rate_final = config.train.learning_rate;
    EXPECT_NO_THROW(check_config(config));
    config.train.beta_schedule = BetaSchedule::cyclic;
    config.train.beta = 0;
    EXPECT_TRUE(contains(message_of<InputError>([&] { check_config(config); }),
                         "train.beta_schedule = \"cyclic\": beta has nothing to rise to"));
}

TEST_F(ScheduledRun, MetricsSayTheBetaThatWasInForce) {
    Config config = small_config();
    config.train.beta = 2;
    config.train.beta_schedule = BetaSchedule::linear;
    config.train.beta_epochs = 2;  // 12 steps
    train_in(whole_, config, splits_);
    const auto rows = metrics_of(whole_);
    ASSERT_EQ(rows.size(), 6U);
    const double last[] = {2 * 5. / 12, 2 * 11. / 12, 2};
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double beta = rows[i]["beta"];
        EXPECT_NEAR(beta, last[i / 2], 1e-12);
        const double recon = rows[i]["recon"];
        const double kl = rows[i]["kl"];
        const double loss = rows[i]["loss"];
        EXPECT_NEAR(rows[i]["elbo"], -(recon + kl), 1e-12);
        const bool is_ramp = i == 0 || i == 2;  // of the training split: each step had its own
        if (is_ramp) {
            EXPECT_LT(loss, recon + beta * kl);
            EXPECT_GT(loss, recon);
        } else {
            EXPECT_NEAR(loss, recon + beta * kl, 1e-9);
        }
    }
}

// Stopped within an epoch, when beta and the learning rate are on their way.
TEST_F(ScheduledRun, ResumeIsExactWithEverySchedule) {
    Config config = small_config();
    config.train.batch = 8;  // many chunks
    config.train.epochs = 2;
    config.train.warmup_steps = 600;
    config.train.schedule_epochs = 1;
    config.train.beta_epochs = 1;
    using enum LearningRateSchedule;
    const std::pair<LearningRateSchedule, BetaSchedule> schedules[] = {
        {step, BetaSchedule::linear},
        {cosine, BetaSchedule::cyclic},
        {burda, BetaSchedule::linear}};
    for (const auto& [rate, beta] : schedules) {
        config.train.schedule = rate;
        config.train.beta_schedule = beta;
        for (const auto* run : {&whole_, &other_}) std::filesystem::remove_all(run->root);
        for (const auto* run : {&whole_, &other_}) std::filesystem::create_directory(run->root);
        train_in(whole_, config, splits_);
        int stops = 0;
        while (train_in(other_, config, splits_, [] { return true; }).was_stopped) ++stops;
        EXPECT_GT(stops, 2);
        expect_same_state(whole_, other_);
        EXPECT_NEAR(metrics_of(whole_)[2]["loss"], metrics_of(other_)[2]["loss"], 1e-9);
    }
}

TEST_F(ScheduledRun, TheLengthOfACosineCannotChange) {
    Config config = small_config();
    config.train.schedule = LearningRateSchedule::cosine;
    const Checkpoint cosine = initial_checkpoint(config, splits_);
    check_resumable(cosine, config, splits_);
    Config same = config;
    same.train.steps = 18;  // as the epochs make
    check_resumable(cosine, same, splits_);
    config.train.epochs = 4;
    EXPECT_TRUE(contains(message_of<InputError>([&] { check_resumable(cosine, config, splits_); }),
                         "its length cannot change"));
}

}  // namespace
}  // namespace vae
