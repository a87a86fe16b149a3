#include "host/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "host/error.h"
#include "host/shuffle.h"

namespace vae {

namespace {

constexpr std::uint64_t kBurdaStages = 8;     // of 3^0, 3^1, …, 3^7 passes
constexpr std::uint64_t kBurdaPasses = 3280;  // in all: (3^8 − 1)/2

// The stage i of the pass `epoch`, counted from 0; the last one past the end.
std::uint64_t burda_stage(std::uint64_t epoch) {
    std::uint64_t stage = 0;
    std::uint64_t length = 1;
    for (std::uint64_t end = 1; epoch >= end && stage + 1 < kBurdaStages; end += length) {
        length *= 3;
        ++stage;
    }
    return stage;
}

}  // namespace

std::uint64_t total_steps(const TrainConfig& train, std::size_t train_examples) {
    if (train_examples == 0) throw InputError("the data have no training examples");
    const std::uint64_t of_epochs = steps_per_epoch(train_examples, train.batch) * train.epochs;
    const std::uint64_t total = train.steps > 0 ? train.steps : of_epochs;
    if (total > std::numeric_limits<std::uint32_t>::max()) {
        throw InputError(
            fmt::format("{} steps are too many: noise is addressed by 32 bits of step", total));
    }
    return total;
}

Schedule::Schedule(const TrainConfig& train, std::size_t train_examples)
    : train_(train),
      steps_per_epoch_(vae::steps_per_epoch(train_examples, train.batch)),
      total_steps_(vae::total_steps(train, train_examples)) {
    const bool is_burda = train.schedule == LearningRateSchedule::burda;
    if (is_burda && total_steps_ > kBurdaPasses * steps_per_epoch_) {
        throw InputError(
            fmt::format("train.schedule = \"burda\" ends after {} passes, which are {} steps here, "
                        "but {} are asked for; use fewer train.epochs or train.steps",
                        kBurdaPasses, kBurdaPasses * steps_per_epoch_, total_steps_));
    }
}

double Schedule::learning_rate(std::uint64_t step) const {
    const double first = train_.learning_rate;
    const std::uint64_t epoch = step / steps_per_epoch_;
    switch (train_.schedule) {
        case LearningRateSchedule::constant:
            return first;
        case LearningRateSchedule::step:
            return first * std::pow(train_.schedule_factor,
                                    static_cast<double>(epoch / train_.schedule_epochs));
        case LearningRateSchedule::cosine: {
            const double part = static_cast<double>(std::min(step, total_steps_)) /
                                static_cast<double>(total_steps_);
            const double last = train_.learning_rate_final;
            return last + (first - last) / 2 * (1 + std::cos(std::numbers::pi * part));
        }
        case LearningRateSchedule::burda:
            return first * std::pow(10.0, -static_cast<double>(burda_stage(epoch)) / 7);
    }
    return first;
}

double Schedule::beta_steps() const {
    return static_cast<double>(train_.beta_epochs) * static_cast<double>(steps_per_epoch_);
}

double Schedule::beta(std::uint64_t step) const {
    const auto done = static_cast<double>(step);
    switch (train_.beta_schedule) {
        case BetaSchedule::constant:
            return train_.beta;
        case BetaSchedule::linear:
            return train_.beta * std::min(1.0, done / beta_steps());
        case BetaSchedule::cyclic:
            return train_.beta *
                   std::min(1.0, std::fmod(done, beta_steps()) / beta_steps() / train_.beta_ramp);
    }
    return train_.beta;
}

std::uint64_t Schedule::beta_warmup_steps() const {
    switch (train_.beta_schedule) {
        case BetaSchedule::constant:
            return 0;
        case BetaSchedule::linear:
            return static_cast<std::uint64_t>(beta_steps());
        case BetaSchedule::cyclic:
            return static_cast<std::uint64_t>(std::ceil(beta_steps() * train_.beta_ramp));
    }
    return 0;
}

StepSchedule Schedule::at(std::uint64_t step) const {
    StepSchedule now{learning_rate(step), beta(step)};
    if (step < train_.warmup_steps) {
        now.learning_rate *=
            static_cast<double>(step + 1) / static_cast<double>(train_.warmup_steps);
    }
    return now;
}

std::vector<StepSchedule> Schedule::steps(std::uint64_t first, std::uint64_t count) const {
    std::vector<StepSchedule> all;
    all.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) all.push_back(at(first + i));
    return all;
}

}  // namespace vae
