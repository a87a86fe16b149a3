#pragma once

#include <csignal>

namespace vae {

// While it lives, the first SIGINT or SIGTERM only raises a flag, so that a run can finish its
// chunk and save; a second one ends the program as usual. At most one at a time.
class StopSignal {
  public:
    StopSignal();
    ~StopSignal();
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;

    bool was_raised() const;

  private:
    struct sigaction old_interrupt_ = {};
    struct sigaction old_terminate_ = {};
};

}  // namespace vae
