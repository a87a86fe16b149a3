#include "bench/training_loop.h"

#include <algorithm>
#include <utility>

#include "host/backend_choice.h"
#include "host/error.h"
#include "host/parameters.h"
#include "host/shuffle.h"
#include "host/train.h"

namespace vae::bench {

TrainingLoop::TrainingLoop(const std::string& backend_name, const Config& config,
                           const Splits& splits)
    : config_(config), examples_(splits.train.size) {
    Checkpoint start = initial_checkpoint(config, splits);
    const ParameterLayout layout = start.layout();
    ChosenBackend chosen = choose_backend(backend_name, config, layout);
    backend_ = std::move(chosen.backend);
    note_ = chosen.note;
    backend_->set_data(splits);
    backend_->set_state(start.state);
    chunk_steps_ = steps_in_chunk(*backend_, layout, config.train.batch);
    epoch_steps_ = steps_per_epoch(examples_, config.train.batch);
}

std::uint64_t TrainingLoop::many_steps() const {
    constexpr std::uint64_t kChunks = 8;
    const std::uint64_t chunk = std::min(chunk_steps_, epoch_steps_);
    return backend_->queues_steps() ? kChunks * chunk : chunk;
}

std::uint64_t TrainingLoop::queue_chunk(std::uint64_t most) {
    const std::uint64_t batch = config_.train.batch;
    const std::uint64_t within = step_ % epoch_steps_;
    const std::uint64_t steps = std::min({most, chunk_steps_, epoch_steps_ - within});
    const std::uint64_t first = within * batch;
    backend_->train({.first_step = step_,
                     .batch = config_.train.batch,
                     .schedule = {{config_.train.learning_rate, config_.train.beta}},
                     .part = {.epoch = static_cast<std::uint32_t>(step_ / epoch_steps_),
                              .first = static_cast<std::uint32_t>(first),
                              .count = static_cast<std::uint32_t>(
                                  std::min(steps * batch, examples_ - first))}});
    backend_->close_totals();
    step_ += steps;
    return steps;
}

void TrainingLoop::take_chunk() {
    const TrainTotals totals = backend_->take_totals();
    if (totals.skipped.count != 0) throw RunError("a step was skipped: " + totals.skipped.cause());
}

void TrainingLoop::train(std::uint64_t steps) {
    const std::size_t ahead = backend_->queues_steps() ? kClosedTotals : 1;
    std::size_t queued = 0;
    for (std::uint64_t left = steps; left > 0; ++queued) {
        if (queued == ahead) {
            take_chunk();
            --queued;
        }
        left -= queue_chunk(left);
    }
    for (; queued > 0; --queued) take_chunk();
}

}  // namespace vae::bench
