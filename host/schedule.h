// Learning rate and beta of every step of a run, as functions of the settings and the step alone:
// so a resumed run goes on exactly, and a comparison trains as a run would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "host/backend.h"
#include "host/config.h"

namespace vae {

// Steps of a whole run. Throws InputError when there is nothing to train on or there are too many.
std::uint64_t total_steps(const TrainConfig& train, std::size_t train_examples);

class Schedule {
  public:
    // Throws InputError as total_steps, and when the run is longer than its schedule.
    Schedule(const TrainConfig& train, std::size_t train_examples);

    // Of step number `step`, counted from 0. Any step will do: past the run's last one a schedule
    // stays where it ended.
    StepSchedule at(std::uint64_t step) const;
    std::vector<StepSchedule> steps(std::uint64_t first, std::uint64_t count) const;

    std::uint64_t steps_per_epoch() const { return steps_per_epoch_; }
    std::uint64_t total_steps() const { return total_steps_; }
    // How many steps beta's first rise takes; 0 where it is constant.
    std::uint64_t beta_warmup_steps() const;

  private:
    double learning_rate(std::uint64_t step) const;
    double beta(std::uint64_t step) const;
    // Of a rise of beta, or of one cycle.
    double beta_steps() const;

    TrainConfig train_;
    std::uint64_t steps_per_epoch_;
    std::uint64_t total_steps_;
};

}  // namespace vae
