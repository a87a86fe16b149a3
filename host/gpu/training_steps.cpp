#include "host/gpu/training_steps.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "host/gpu/kernel_times.h"
#include "host/gpu/range.h"
#include "host/noise.h"
#include "host/shuffle.h"

namespace vae::gpu {
namespace {

// While somebody observes, a step is one kernel after the other (branch.h, kernels/launch.h).
class Nobody : public kernels::LaunchObserver {
  public:
    void before(std::string_view, cudaStream_t) override {}
    void after(cudaStream_t) override {}
};

// Steps that the host lays out at a time: 128 KiB.
constexpr std::size_t kQueuedSteps = 4096;
// Examples given as such go to the device so many at a time, or a batch.
constexpr std::size_t kGivenRows = std::size_t{1} << 16;

// As long as launching a graph costs little beside its steps, more of them gain nothing.
constexpr std::size_t kGraphSteps = 64;

std::size_t graph_steps_of(const TrainConfig& train) {
    if (train.graph_steps > 0) return train.graph_steps;
    return std::max<std::size_t>(1, kGraphSteps / train.micro_batches);
}

// Examples of the largest step.
std::size_t step_rows_of(const TrainConfig& train, int capacity) {
    return std::max<std::size_t>(train.batch, static_cast<std::size_t>(capacity));
}

template <class T>
void copy_to_device(DeviceArray<T>& to, PinnedArray<T>& from, std::size_t count,
                    const Stream& stream) {
    if (count == 0) return;
    cuda_check(cudaMemcpyAsync(to.data(), from.data(), count * sizeof(T), cudaMemcpyHostToDevice,
                               stream.get()),
               "cudaMemcpyAsync of the steps");
}

}  // namespace

TrainingSteps::TrainingSteps(const TrainConfig& train, int capacity, StepParts parts,
                             const Stream& stream, DeviceArena& arena)
    : parts_(std::move(parts)),
      stream_(stream),
      graph_steps_(static_cast<int>(graph_steps_of(train))),
      batch_(train.batch),
      step_rows_(step_rows_of(train, capacity)),
      micro_batches_(static_cast<int>(train.micro_batches)),
      most_steps_(kQueuedSteps),
      most_rows_(std::max(kGivenRows, step_rows_)),
      ahead_(stream),
      queue_(arena, 1, "the queue of steps"),
      table_(arena, most_steps_, "the queue of steps"),
      rows_(arena, most_rows_, "row indices"),
      states_(arena, graph_steps_of(train), "the states of steps"),
      index_(arena, graph_steps_of(train) * step_rows_, "row indices"),
      staged_queue_(1),
      staged_table_(most_steps_),
      staged_rows_(most_rows_),
      examples_(train.seed) {
    order_.shuffle = {.seed = train.seed, .purpose = static_cast<std::uint32_t>(Purpose::shuffle)};
}

void TrainingSteps::start() {
    order_.queue = queue_.data();
    order_.table = table_.data();
    order_.rows = rows_.data();
}

void TrainingSteps::set_examples(std::uint32_t examples, StreamedData* streamed) {
    order_.count = examples;
    order_.ring = streamed == nullptr ? 0 : streamed->ring_rows();
    examples_.set_examples(examples);
    streamed_ = streamed;
    graph_rows_ = 0;
    many_.reset();
    one_.reset();
}

std::size_t TrainingSteps::window_rows(std::size_t row_bytes, std::size_t window_bytes) const {
    const std::size_t wanted =
        std::max(step_rows_, batch_ * static_cast<std::size_t>(graph_steps_));
    return std::max(batch_, std::min(wanted, window_bytes / std::max<std::size_t>(row_bytes, 1)));
}

void TrainingSteps::run(const TrainRequest& request) {
    const std::size_t steps = steps_per_epoch(request.examples(), request.batch);
    std::size_t at_once = most_steps_;
    if (!request.rows.empty()) at_once = std::min(at_once, most_rows_ / request.batch);
    for (std::size_t first = 0; first < steps; first += at_once) {
        const std::size_t count = std::min(at_once, steps - first);
        upload(request, first, count);
        const std::size_t examples = std::min<std::size_t>(
            count * request.batch, request.examples() - first * request.batch);
        run_queued(examples, request.batch);
    }
}

void TrainingSteps::upload(const TrainRequest& request, std::size_t first, std::size_t count) {
    uploaded_.synchronize();  // the staging memory may still be read
    const std::size_t skipped = first * request.batch;
    const bool has_rows = !request.rows.empty();
    *staged_queue_.data() = {
        .position = has_rows ? 0 : request.part.first + static_cast<unsigned>(skipped),
        .epoch = request.part.epoch,
        .has_rows = has_rows ? 1U : 0U,
        .slot = streamed_ == nullptr ? 0 : streamed_->next_slot()};
    if (streamed_ != nullptr) examples_.start(request, skipped);
    for (std::size_t i = 0; i < count; ++i) {
        staged_table_.data()[i] =
            parts_.state_of(request.first_step + first + i, request.step_schedule(first + i));
    }
    copy_to_device(queue_, staged_queue_, 1, stream_);
    copy_to_device(table_, staged_table_, count, stream_);
    if (has_rows) {
        const auto rows = request.rows.subspan(
            skipped, std::min<std::size_t>(count * request.batch, request.rows.size() - skipped));
        std::copy(rows.begin(), rows.end(), staged_rows_.data());
        copy_to_device(rows_, staged_rows_, rows.size(), stream_);
    }
    uploaded_.record(stream_);
}

int TrainingSteps::steps_at_once(int rows) const {
    if (streamed_ == nullptr) return graph_steps_;
    const std::size_t fit = streamed_->window_rows() / static_cast<std::size_t>(rows);
    return std::min(graph_steps_, static_cast<int>(fit));
}

void TrainingSteps::load(std::size_t steps, int rows) {
    if (streamed_ == nullptr) return;
    const std::size_t count = steps * static_cast<std::size_t>(rows);
    streamed_->load(Split::train, examples_.next(count));
    if (!streamed_->wants_notice(Split::train)) return;
    streamed_->notice(Split::train, examples_.peek(count));
}

template <class Take>
void TrainingSteps::take_each(std::size_t steps, int rows, const Take& take) {
    const auto at_once = static_cast<std::size_t>(steps_at_once(rows));
    while (steps > 0) {
        const std::size_t count = std::min(steps, at_once);
        load(count, rows);
        for (std::size_t i = 0; i < count; ++i) take();
        steps -= count;
    }
}

// The first step of a size is given to the stream as it is, so that what libraries load at their
// first use is there when a graph is captured; and so is the last one of an epoch, if it is
// smaller.
void TrainingSteps::run_queued(std::size_t examples, std::uint32_t batch) {
    if (examples == 0) return;
    const int rows = static_cast<int>(std::min<std::size_t>(batch, examples));
    std::size_t whole = examples / batch;
    const auto rest = static_cast<int>(examples % batch);
    const auto plain = [this, rows] { queue_steps(1, rows); };
    if (stepping_ == Stepping::eager) take_each(std::exchange(whole, 0), rows, plain);
    if (whole > 0 && graph_rows_ != rows) {
        graph_rows_ = rows;
        many_.reset();
        one_.reset();
        take_each(1, rows, plain);
        --whole;
    }
    const int at_once = steps_at_once(rows);
    for (const auto many = static_cast<std::size_t>(at_once); whole >= many; whole -= many) {
        const Range range("a graph of steps");
        load(many, rows);
        graph(at_once, rows).launch(stream_);
    }
    take_each(whole, rows, [this, rows] { graph(1, rows).launch(stream_); });
    if (rest > 0) take_each(1, rest, [this, rest] { queue_steps(1, rest); });
}

const Graph& TrainingSteps::graph(int count, int rows) {
    std::unique_ptr<Graph>& kept = count == 1 ? one_ : many_;
    if (kept == nullptr) {
        kept = std::make_unique<Graph>(stream_, [&] { queue_steps(count, rows); });
    }
    return *kept;
}

StepProfile TrainingSteps::profile(const TrainRequest& request) {
    const std::size_t steps = request.examples() / request.batch;
    if (steps < kLeastProfiledSteps || steps > most_steps_ ||
        request.examples() % request.batch != 0 || !request.rows.empty()) {
        throw std::invalid_argument(
            "profile: too few whole steps of an epoch, or not given as a part of it");
    }
    const int rows = static_cast<int>(request.batch);
    upload(request, 0, steps);
    run_queued(request.batch, request.batch);  // whatever is done but once
    const std::size_t third = (steps - 1) / 3;
    // Whole graphs alone if they leave one for a first launch, which is slower; else single steps.
    const int many = steps_at_once(rows);
    const int at_once = third >= 2 * static_cast<std::size_t>(many) ? many : 1;
    StepProfile result;
    result.step_microseconds = time_steps(graph(at_once, rows), at_once, rows, third);
    {
        Nobody nobody;
        const Graph serial(stream_, [&] {
            const kernels::ObservedLaunches observe(nobody);
            queue_steps(at_once, rows);
        });
        result.serial_step_microseconds = time_steps(serial, at_once, rows, third);
    }
    KernelTimes times;
    const Graph observed(stream_, [&] {
        const kernels::ObservedLaunches observe(times);
        times.observe_nothing(stream_.get());
        queue_steps(1, rows);
    });
    const std::size_t taken = 1 + 2 * (third - third % static_cast<std::size_t>(at_once));
    for (std::size_t i = taken; i < steps; ++i) {
        load(1, rows);
        observed.launch(stream_);
        stream_.synchronize();
        times.collect();
    }
    result.steps = static_cast<int>(steps - taken);
    result.kernels = times.means();
    result.event_microseconds = times.of_nothing();
    return result;
}

// Microseconds a step of graphs of `at_once` steps, as many as `most` steps allow; the first one is
// not timed.
double TrainingSteps::time_steps(const Graph& graph, int at_once, int rows, std::size_t most) {
    const auto step = static_cast<std::size_t>(at_once);
    const auto take = [&] {
        load(step, rows);
        graph.launch(stream_);
    };
    TimedEvent start;
    TimedEvent end;
    take();
    start.record(stream_);
    const std::size_t timed = most / step - 1;
    for (std::size_t i = 0; i < timed; ++i) take();
    end.record(stream_);
    return 1000 * end.milliseconds_since(start) / static_cast<double>(timed * step);
}

std::vector<StepPlace> TrainingSteps::places(int count, int rows) const {
    const int part_rows = (rows - 1) / micro_batches_ + 1;
    std::vector<StepPlace> result;
    for (int k = 0; k < count; ++k) {
        for (int first = 0; first < rows; first += part_rows) {
            const auto at = static_cast<std::size_t>(k) * static_cast<std::size_t>(rows) +
                            static_cast<std::size_t>(first);
            result.push_back(
                {.index = index_.data() + at,
                 .slots = streamed_ == nullptr ? nullptr : streamed_->step_slots() + at,
                 .rows = std::min(part_rows, rows - first),
                 .state = states_.data() + k,
                 .part = {.step_examples = rows, .is_first = first == 0}});
        }
    }
    return result;
}

// The examples of a place are gathered beside the work on the one before.
void TrainingSteps::queue_steps(int count, int rows) {
    kernels::begin_steps(order_, count, rows, states_.data(), index_.data(),
                         streamed_ == nullptr ? nullptr : streamed_->step_slots(), stream_.get());
    const std::vector<StepPlace> all = places(count, rows);
    parts_.gather(all.front(), stream_);
    for (std::size_t i = 0; i < all.size(); ++i) {
        parts_.swap_x();
        const bool has_next = i + 1 < all.size();
        if (has_next) {
            ahead_.fork();
            parts_.gather(all[i + 1], ahead_.stream());
        }
        parts_.differentiate(all[i]);
        if (!has_next || all[i + 1].part.is_first) parts_.update(all[i].state);
        if (has_next) ahead_.join();
    }
}

}  // namespace vae::gpu
