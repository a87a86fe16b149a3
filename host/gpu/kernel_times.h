// Measures what a stream is given while a graph is captured: an event before each kernel and
// product and one behind it become part of the graph.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "host/gpu/timed_event.h"
#include "host/step_profile.h"
#include "kernels/launch_observer.h"

namespace vae::gpu {

class KernelTimes : public kernels::LaunchObserver {
  public:
    void before(std::string_view what, cudaStream_t stream) override;
    void after(cudaStream_t stream) override;

    // After a replay of the graph is done: adds its times.
    void collect();
    // Means over all replays, by name, the longest first.
    std::vector<KernelTime> means() const;

  private:
    struct Launch {
        std::string name;
        TimedEvent start;
        TimedEvent end;
        double milliseconds = 0;  // of all replays
    };
    std::deque<Launch> launches_;  // whose events stay where they are
    int replays_ = 0;
};

}  // namespace vae::gpu
