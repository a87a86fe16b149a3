// The training loop: which rows when, evaluation, metrics, checkpoints, and going on with a run.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/checkpoint.h"
#include "host/metrics.h"
#include "host/progress.h"
#include "host/run_folder.h"
#include "host/schedule.h"

namespace vae {

// The first training of a configuration: initial parameters, step 0.
Checkpoint initial_checkpoint(const Config& config, const Splits& splits);

// Losses are read, a stop is noticed and progress is shown after this many steps. It follows from
// the settings and the backend alone, so that sums are added in the same order in every run: about
// a fifth of a second on a CPU, and on a GPU long enough that waiting for the result costs nothing.
std::uint64_t steps_in_chunk(const Backend& backend, const ParameterLayout& layout,
                             std::uint32_t batch);

// Throws InputError when train.patience waits for a split that is not there.
void check_held_out(const Config& config, const Splits& splits);

// Throws InputError naming the settings that differ, or the data that differ, so that the
// checkpoint cannot be gone on with. train.patience, train.graph_steps and data.placement may
// differ, and train.epochs and train.steps unless the learning rate depends on them, and so may the
// path of a file, a folder or mnist:DIR, which may have been moved.
void check_resumable(const Checkpoint& checkpoint, const Config& config, const Splits& splits);

// Writes the settings and the start of a new run, and keeps its folder. Throws RunError, and does
// not keep it, when should_stop then says yes: a run is there whole or not at all.
void begin_run(NewRunFolder& made, const Checkpoint& start,
               const std::function<bool()>& should_stop);

struct TrainResult {
    bool was_stopped = false;    // by should_stop, before the last step
    bool stopped_early = false;  // for want of a better epoch, before the last step
    std::uint64_t step = 0;
    EarlyStopping early_stopping;
};

class Trainer {
  public:
    // Everything is the caller's and outlives the trainer; the backend has the splits.
    Trainer(const Config& config, const Splits& splits, Backend& backend, const RunFolder& folder,
            Progress& progress);

    // Goes on from `start` to the run's last step. After each epoch and at the end: evaluates the
    // held-out split, if there is one, appends to metrics.jsonl and replaces the checkpoint; with
    // train.patience also the best one, if the epoch is the best so far, and ends when there was
    // none for too long. Epochs count as stale once beta's first rise is over.
    // should_stop is asked between chunks of steps; when it says yes a checkpoint is written when
    // those that the backend has are done, and the run ends there. The parameters depend on neither
    // stops nor chunks. An epoch with skipped steps says so in one line. Throws RunError when no
    // step of an epoch or of 32 in a row could be taken, and when a loss of an evaluation, a
    // parameter, a moment or an average is not finite; the checkpoint is then the last good one.
    // The state of `start` is taken from it, so that it takes no memory during the run.
    TrainResult run(Checkpoint&& start, const std::function<bool()>& should_stop);

  private:
    void start_from(Checkpoint&& start);
    void train_chunk(std::uint64_t end_of_epoch_or_run);
    void queue_chunk(std::uint64_t end_of_epoch_or_run);
    void take_chunk(std::uint64_t end_of_epoch_or_run);
    void finish_queued(std::uint64_t end_of_epoch_or_run);
    void finish_epoch();
    MetricsRow evaluate(Split split);
    // Whether a whole epoch that was evaluated is the best so far.
    bool is_best(const MetricsRow& evaluated);
    void save(bool is_best);
    void warn_of_skipped();
    [[noreturn]] void refuse_values(const std::string& what) const;
    void show();
    std::uint32_t epoch() const;
    double last_beta() const;
    std::uint32_t epochs() const;

    const Config& config_;
    const Splits& splits_;
    Backend& backend_;
    const RunFolder& folder_;
    Progress& progress_;
    MetricsLog metrics_;

    const Schedule schedule_;
    const std::uint64_t total_steps_;
    const std::uint64_t steps_per_epoch_;
    const std::uint64_t chunk_steps_;

    std::uint64_t step_ = 0;            // whose losses are known
    std::uint64_t queued_ = 0;          // given to the backend
    std::deque<std::uint64_t> chunks_;  // the steps of each that is between the two
    TrainTotals epoch_totals_;
    std::uint64_t skipped_in_a_row_ = 0;  // steps, of whole chunks that could take none
    double epoch_seconds_ = 0;
    EarlyStopping early_stopping_;
    std::uint64_t steps_here_ = 0;  // in this process, for the time left
    std::chrono::steady_clock::time_point started_;
};

}  // namespace vae
