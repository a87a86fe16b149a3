#include "host/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "host/config_file.h"
#include "host/data_bias.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/pseudo_inputs.h"
#include "host/settings.h"
#include "host/spelling.h"

namespace vae {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMostSkippedInARow = 32;  // then nothing else will come of the run

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_finite(const LossTotals& totals) {
    return std::isfinite(totals.recon) && std::isfinite(totals.kl) && std::isfinite(totals.loss);
}

std::string losses_text(const MetricsRow& row) {
    const LossMeans mean = means(row.totals);
    return fmt::format("{} -elbo {:.2f} (recon {:.2f}, kl {:.2f})", name_of(row.split), -mean.elbo,
                       mean.recon, mean.kl);
}

// Whether both are a FILE or FOLDER, or both mnist:DIR.
bool may_be_moved(const std::string& from, const std::string& to) {
    return path_of_source(from) && path_of_source(to) && is_one_set(from) == is_one_set(to);
}

}  // namespace

std::uint64_t steps_in_chunk(const Backend& backend, const ParameterLayout& layout,
                             std::uint32_t batch) {
    const double flops = backend.name() == "cuda" ? 1e12 : 1e10;
    const double of_step = 6.0 * static_cast<double>(layout.arena_size) * batch;
    return static_cast<std::uint64_t>(std::clamp(flops / of_step, 1.0, 512.0));
}

Checkpoint initial_checkpoint(const Config& config, const Splits& splits) {
    Checkpoint checkpoint;
    checkpoint.config = config;
    checkpoint.shape = splits.train.shape;
    checkpoint.train_examples = splits.train.size;
    const ParameterLayout layout = checkpoint.layout();
    std::vector<float> parameters =
        initial_parameters(layout, config.model.initialization, config.train.seed);
    if (config.model.data_bias) {
        set_data_bias(config.model, layout, splits.train, parameters);
    }
    set_pseudo_inputs(layout, splits.train, config.train.seed, parameters);
    checkpoint.state = start_state(config.train, std::move(parameters));
    return checkpoint;
}

void check_held_out(const Config& config, const Splits& splits) {
    if (config.train.patience == 0 || splits.held_out() != Split::train) return;
    throw InputError(
        fmt::format("train.patience = {}: {} has no held-out examples to stop by; hold some out "
                    "with data.validation, or set train.patience to 0",
                    config.train.patience, config.data.source));
}

void check_resumable(const Checkpoint& checkpoint, const Config& config, const Splits& splits) {
    for (const std::string& key : differing_settings(checkpoint.config, config)) {
        if (key == "train.epochs" || key == "train.steps" || key == "train.patience") continue;
        if (key == "train.graph_steps" || key == "data.placement") continue;  // the same bits
        const bool is_source = key == "data.source";
        if (is_source && may_be_moved(checkpoint.config.data.source, config.data.source)) continue;
        throw InputError(fmt::format(
            "--resume: the run was started with {} = {}, not {}; leave it as it was, or start "
            "another run",
            key, setting_text(checkpoint.config, key), setting_text(config, key)));
    }
    const TrainConfig& train = config.train;
    if (train.schedule == LearningRateSchedule::cosine &&
        total_steps(train, checkpoint.train_examples) !=
            total_steps(checkpoint.config.train, checkpoint.train_examples)) {
        throw InputError(
            "--resume: train.schedule = \"cosine\" falls over the whole run, so its length cannot "
            "change; leave train.epochs and train.steps as they were, or start another run");
    }
    if (checkpoint.shape != splits.train.shape || checkpoint.train_examples != splits.train.size) {
        throw InputError(fmt::format(
            "--resume: {} now has {} training examples of {}; the run was started with {} of {}",
            config.data.source, splits.train.size, to_text(splits.train.shape),
            checkpoint.train_examples, to_text(checkpoint.shape)));
    }
}

void begin_run(NewRunFolder& made, const Checkpoint& start,
               const std::function<bool()>& should_stop) {
    write_file_atomically(made.folder().config(), to_toml(start.config));
    save_checkpoint(made.folder().checkpoint(), start);
    if (should_stop()) {
        throw RunError("stopped by a signal before the first step; no run was left");
    }
    made.keep();
}

Trainer::Trainer(const Config& config, const Splits& splits, Backend& backend,
                 const RunFolder& folder, Progress& progress)
    : config_(config),
      splits_(splits),
      backend_(backend),
      folder_(folder),
      progress_(progress),
      metrics_(folder.metrics()),
      schedule_(config.train, splits.train.size),
      total_steps_(schedule_.total_steps()),
      steps_per_epoch_(schedule_.steps_per_epoch()),
      chunk_steps_(steps_in_chunk(backend, {config.model, splits.train.shape.pixels()},
                                  config.train.batch)) {}

void Trainer::start_from(Checkpoint&& start) {
    const TrainingState state = std::move(start.state);  // gone when the backend has it
    backend_.set_state(state);
    step_ = state.step;
    queued_ = state.step;
    epoch_totals_ = start.epoch_totals;
    epoch_seconds_ = start.epoch_seconds;
    early_stopping_ = start.early_stopping;
    steps_here_ = 0;
    started_ = Clock::now();
}

void Trainer::refuse_values(const std::string& what) const {
    throw RunError(fmt::format(
        "{}; the last good checkpoint is kept in {}; look at train.learning_rate ({}), train.beta "
        "({}) and the range of the data",
        what, folder_.checkpoint().string(), config_.train.learning_rate, config_.train.beta));
}

void Trainer::queue_chunk(std::uint64_t end) {
    const auto epoch = static_cast<std::uint32_t>(queued_ / steps_per_epoch_);
    const std::uint64_t within = queued_ % steps_per_epoch_;
    // Chunks start at multiples of their length, wherever the run was resumed.
    const std::uint64_t to_boundary = chunk_steps_ - within % chunk_steps_;
    const std::uint64_t steps = std::min(to_boundary, end - queued_);
    const std::uint64_t batch = config_.train.batch;
    const std::uint64_t begin = within * batch;
    const std::uint64_t count = std::min(steps * batch, splits_.train.size - begin);
    backend_.train(
        {.first_step = queued_,
         .batch = config_.train.batch,
         .schedule = schedule_.steps(queued_, steps),
         .part = {epoch, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(count)}});
    backend_.close_totals();
    queued_ += steps;
    chunks_.push_back(steps);
}

void Trainer::take_chunk(std::uint64_t end) {
    const std::uint64_t steps = chunks_.front();
    chunks_.pop_front();
    const TrainTotals totals = backend_.take_totals();
    epoch_totals_.losses += totals.losses;
    skipped_in_a_row_ = totals.skipped.count == steps ? skipped_in_a_row_ + steps : 0;
    const bool is_lost_epoch = step_ + steps == end && epoch_totals_.losses.examples == 0;
    if (skipped_in_a_row_ >= kMostSkippedInARow || is_lost_epoch) {
        refuse_values(fmt::format("no step could be taken: {} is not finite in steps {} to {}",
                                  totals.skipped.cause(), step_ + steps - skipped_in_a_row_ + 1,
                                  step_ + steps));
    }
    epoch_totals_.skipped += totals.skipped;
    step_ += steps;
    steps_here_ += steps;
}

// While a chunk's losses are looked at the backend has the next one: it never waits for the driver
// within an epoch.
void Trainer::train_chunk(std::uint64_t end) {
    const auto start = Clock::now();
    const std::size_t ahead = backend_.queues_steps() ? kClosedTotals : 1;
    while (queued_ < end && chunks_.size() < ahead) queue_chunk(end);
    take_chunk(end);
    epoch_seconds_ += seconds_since(start);
}

// What is queued cannot be taken back.
void Trainer::finish_queued(std::uint64_t end) {
    const auto start = Clock::now();
    while (!chunks_.empty()) take_chunk(end);
    epoch_seconds_ += seconds_since(start);
}

// Of the last step.
std::uint32_t Trainer::epoch() const {
    return static_cast<std::uint32_t>((step_ - 1) / steps_per_epoch_ + 1);
}

double Trainer::last_beta() const {
    return schedule_.at(step_ - 1).beta;
}

std::uint32_t Trainer::epochs() const {
    return static_cast<std::uint32_t>((total_steps_ - 1) / steps_per_epoch_ + 1);
}

void Trainer::show() {
    const double remaining = static_cast<double>(total_steps_ - step_);
    const double per_step = seconds_since(started_) / static_cast<double>(steps_here_);
    progress_.update(
        {.epoch = epoch(),
         .epochs = epochs(),
         .step = step_,
         .steps = total_steps_,
         .totals = epoch_totals_.losses,
         .examples_per_second = static_cast<double>(epoch_totals_.losses.examples) / epoch_seconds_,
         .seconds_left = remaining * per_step});
}

void Trainer::save(bool is_best) {
    Checkpoint checkpoint;
    checkpoint.config = config_;
    checkpoint.shape = splits_.train.shape;
    checkpoint.train_examples = splits_.train.size;
    checkpoint.state = backend_.state();
    checkpoint.state.step = step_;
    // The gradients were finite, and what the last update made of them may not be.
    const TrainingState& state = checkpoint.state;
    const auto check = [this](const char* what, const std::vector<float>& values) {
        const bool is_good = std::all_of(values.begin(), values.end(),
                                         [](float value) { return std::isfinite(value); });
        if (!is_good) refuse_values(fmt::format("{} is not finite after step {}", what, step_));
    };
    check("a parameter", state.parameters);
    for (const auto& moment : state.moments) check("a moment of the optimiser", moment);
    check("an average of a parameter", state.ema);
    checkpoint.epoch_totals = epoch_totals_;
    checkpoint.epoch_seconds = epoch_seconds_;
    checkpoint.early_stopping = early_stopping_;
    // The best one first: a run that ends between the two repeats the epoch, and it too.
    if (is_best) save_checkpoint(folder_.best(), checkpoint);
    save_checkpoint(folder_.checkpoint(), checkpoint);
}

MetricsRow Trainer::evaluate(Split split) {
    const auto start = Clock::now();
    const LossTotals totals = backend_.evaluate(split, last_beta());
    if (!is_finite(totals)) {
        refuse_values(fmt::format("the loss of the {} split is not finite after step {}",
                                  name_of(split), step_));
    }
    return {step_, epoch(), split, totals, last_beta(), seconds_since(start), 0, kl_is(config_)};
}

// The end of a run within an epoch is none of the epochs that a longer run has, and is not counted.
bool Trainer::is_best(const MetricsRow& evaluated) {
    if (config_.train.patience == 0 || step_ % steps_per_epoch_ != 0) return false;
    const bool counts = step_ > schedule_.beta_warmup_steps();
    return early_stopping_.take(means(evaluated.totals).elbo, evaluated.epoch, counts);
}

void Trainer::warn_of_skipped() {
    const SkippedSteps& skipped = epoch_totals_.skipped;
    if (skipped.count == 0) return;
    progress_.line(fmt::format("warning: skipped {} of {}: {} was not finite at step {}",
                               skipped.count, counted((step_ - 1) % steps_per_epoch_ + 1, "step"),
                               skipped.cause(), skipped.first_step + 1));
}

// Rows of metrics, a checkpoint and a line for people, at the end of an epoch or of the run.
void Trainer::finish_epoch() {
    warn_of_skipped();
    const MetricsRow trained{step_,
                             epoch(),
                             Split::train,
                             epoch_totals_.losses,
                             last_beta(),
                             epoch_seconds_,
                             epoch_totals_.skipped.count,
                             kl_is(config_)};
    std::optional<MetricsRow> evaluated;
    if (splits_.held_out() != Split::train) evaluated = evaluate(splits_.held_out());
    metrics_.write(trained);
    if (evaluated) metrics_.write(*evaluated);
    if (step_ % steps_per_epoch_ == 0) {
        epoch_totals_ = {};
        epoch_seconds_ = 0;
    }
    // Before the line: whoever reads it finds the checkpoint.
    save(evaluated && is_best(*evaluated));
    progress_.line(
        fmt::format("epoch {}/{}  step {}  {}{}  {} examples/s", trained.epoch, epochs(), step_,
                    losses_text(trained), evaluated ? "  " + losses_text(*evaluated) : "",
                    rate_text(static_cast<double>(trained.totals.examples) / trained.seconds)));
}

TrainResult Trainer::run(Checkpoint&& start, const std::function<bool()>& should_stop) {
    start_from(std::move(start));
    TrainResult result;
    while (step_ < total_steps_) {
        const std::uint64_t epoch_end = (step_ / steps_per_epoch_ + 1) * steps_per_epoch_;
        const std::uint64_t end = std::min(epoch_end, total_steps_);
        train_chunk(end);
        const bool is_within = step_ != end;
        bool stops = false;
        if (is_within) {
            show();
            stops = should_stop();
            if (stops) finish_queued(end);
        }
        if (step_ == end) finish_epoch();
        if (step_ == total_steps_) break;
        if (early_stopping_.is_over(config_.train.patience)) {
            result.stopped_early = true;
            break;
        }
        if (!is_within) stops = should_stop();
        if (stops) {
            if (step_ != end) save(false);
            result.was_stopped = true;
            break;
        }
    }
    result.step = step_;
    result.early_stopping = early_stopping_;
    return result;
}

}  // namespace vae
