// Measures what a stream is given while a graph is captured: an event before each kernel and
// product and one behind it become part of the graph.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/gpu/timed_event.h"
#include "host/step_profile.h"
#include "kernels/launch_observer.h"

namespace vae::gpu {

// Between two events in a graph.
struct TimedInterval {
    TimedEvent start;
    TimedEvent end;
    double milliseconds = 0;  // of all replays

    void observe(cudaStream_t stream) {
        start.record_in_graph(stream);
        end.record_in_graph(stream);
    }
    void collect() { milliseconds += end.milliseconds_since(start); }
};

class KernelTimes : public kernels::LaunchObserver {
  public:
    void before(std::string_view what, cudaStream_t stream) override;
    void after(cudaStream_t stream) override;

    // The two events with nothing between them: what they add to the time of a launch.
    void observe_nothing(cudaStream_t stream) { nothing_.emplace().observe(stream); }

    // After a replay of the graph is done: adds its times.
    void collect();
    // Means over all replays, by name, the longest first.
    std::vector<KernelTime> means() const;
    // Microseconds, the mean too; observe_nothing was called.
    double of_nothing() const { return mean(nothing_.value()); }

  private:
    struct Launch {
        std::string name;
        TimedInterval interval;
    };
    double mean(const TimedInterval& interval) const;

    std::deque<Launch> launches_;  // whose events stay where they are
    std::optional<TimedInterval> nothing_;
    int replays_ = 0;
};

}  // namespace vae::gpu
