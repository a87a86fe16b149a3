// Training steps on the device, as graphs that are captured once and replayed. Nothing of a step
// waits for the host: what changes from step to step is laid out in a queue on the device, and
// which examples come is computed there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "host/backend.h"
#include "host/gpu/branch.h"
#include "host/gpu/device_array.h"
#include "host/gpu/example_order.h"
#include "host/gpu/graph.h"
#include "host/gpu/network.h"
#include "host/gpu/streamed_data.h"
#include "host/step_profile.h"
#include "kernels/begin_steps.h"
#include "kernels/step_state.h"

namespace vae::gpu {

// Some or all of a training step's examples, and its state, all on the device.
struct StepPlace {
    const std::uint32_t* index = nullptr;  // [rows], of the training split
    const std::uint32_t* slots = nullptr;  // [rows], of the ring, if examples are streamed
    int rows = 0;
    const kernels::StepState* state = nullptr;
    StepPart part;
};

// What a step does; each is given to streams and not waited for.
struct StepParts {
    // x of a place, on a stream, where the network will look for it after swap_x.
    std::function<void(const StepPlace&, const Stream&)> gather;
    std::function<void()> swap_x;
    // Losses and gradients of a place whose x is there.
    std::function<void(const StepPlace&)> differentiate;
    // After all of a step's parts.
    std::function<void(const kernels::StepState*)> update;
    // The host's part of a step's state.
    std::function<kernels::StepState(std::uint64_t step, const StepSchedule&)> state_of;
};

// How steps are given to the device: from captured graphs, or one by one, as whoever looks at
// single kernels wants it. The bits are the same.
enum class Stepping { graphs, eager };

class TrainingSteps {
  public:
    // For steps whose parts have up to `capacity` examples.
    TrainingSteps(const TrainConfig& train, int capacity, StepParts parts, const Stream& stream,
                  DeviceArena& arena);
    // Once the arena is allocated.
    void start();

    // Of how many examples an epoch is, and through what they come, if they are streamed. Graphs
    // made before are forgotten.
    void set_examples(std::uint32_t examples, StreamedData* streamed);
    // Examples of the windows in which they should be streamed: those of a graph's steps, as far as
    // they have no more than `window_bytes`; those of a step in any case.
    std::size_t window_rows(std::size_t row_bytes, std::size_t window_bytes) const;
    void set_stepping(Stepping stepping) { stepping_ = stepping; }
    // Of a graph, unless examples are streamed through windows of fewer.
    int graph_steps() const { return graph_steps_; }
    // Queues all steps of a request that was checked. Waits for nothing but the copy of an earlier
    // request's steps and, if examples are streamed, for room to gather them.
    void run(const TrainRequest& request);

    // Takes the steps, at least kLeastProfiledSteps and whole ones alone: a third as training takes
    // them, a third on one stream, and the others with an event before and behind every kernel and
    // product. Waits.
    StepProfile profile(const TrainRequest& request);

  private:
    // The steps that were uploaded.
    void run_queued(std::size_t examples, std::uint32_t batch);
    void upload(const TrainRequest& request, std::size_t first, std::size_t count);
    // Of steps of `rows` examples, for which examples are there at a time.
    int steps_at_once(int rows) const;
    // Brings the examples of the next `steps` steps of `rows`, at most steps_at_once, to the
    // device, if they are streamed.
    void load(std::size_t steps, int rows);
    // Calls take() for each of some steps of `rows` examples, when its examples are there.
    template <class Take>
    void take_each(std::size_t steps, int rows, const Take& take);
    // The next `count` steps of the queue, of `rows` examples each, given to the stream.
    void queue_steps(int count, int rows);
    // Their parts, in order.
    std::vector<StepPlace> places(int count, int rows) const;
    const Graph& graph(int count, int rows);
    double time_steps(const Graph& graph, int at_once, int rows, std::size_t most);

    const StepParts parts_;
    const Stream& stream_;
    const int graph_steps_;
    const std::size_t batch_;
    const std::size_t step_rows_;  // of the largest step
    const int micro_batches_;
    const std::size_t most_steps_;  // in the queue
    const std::size_t most_rows_;   // given as such
    Branch ahead_;                  // the next step's examples
    DeviceArray<kernels::StepQueue> queue_;
    DeviceArray<kernels::StepState> table_;   // [most_steps]
    DeviceArray<std::uint32_t> rows_;         // [most_rows]
    DeviceArray<kernels::StepState> states_;  // [graph_steps]
    DeviceArray<std::uint32_t> index_;        // [graph_steps, rows of the largest step]
    PinnedArray<kernels::StepQueue> staged_queue_;
    PinnedArray<kernels::StepState> staged_table_;
    PinnedArray<std::uint32_t> staged_rows_;
    Event uploaded_;
    kernels::StepOrder order_;
    ExampleOrder examples_;             // of streamed ones
    StreamedData* streamed_ = nullptr;  // null: they are on the device
    Stepping stepping_ = Stepping::graphs;
    // Of steps of graph_rows_ examples.
    int graph_rows_ = 0;
    std::unique_ptr<Graph> many_;
    std::unique_ptr<Graph> one_;
};

}  // namespace vae::gpu
