// A second stream for work that does not depend on what the first one does meanwhile. While the
// first stream captures a graph, forks and joins become the graph's edges.
#pragma once

#include "host/gpu/device_array.h"
#include "kernels/launch_observer.h"

namespace vae::gpu {

class Branch {
  public:
    // The trunk outlives the branch.
    explicit Branch(const Stream& trunk) : trunk_(trunk) {}

    // While somebody measures each kernel it is the trunk's, so that nothing runs beside it.
    const Stream& stream() const { return is_measured() ? trunk_ : stream_; }
    // The branch's own whatever happens.
    const Stream& own_stream() const { return stream_; }
    static bool is_measured() { return kernels::launch_observer() != nullptr; }
    // What the branch is given from now on runs after all that the trunk was given.
    void fork() {
        if (is_measured()) return;
        forked_.record(trunk_);
        forked_.hold(stream_);
    }
    // What the trunk is given from now on runs after all that the branch was given.
    void join() {
        if (is_measured()) return;
        joined_.record(stream_);
        joined_.hold(trunk_);
    }

  private:
    const Stream& trunk_;
    Stream stream_;
    Event forked_;
    Event joined_;
};

}  // namespace vae::gpu
