#pragma once

#include <array>
#include <csignal>

namespace vae {

// While it lives, the first SIGINT, SIGTERM or SIGHUP only raises a flag, so that a run can finish
// its chunk and save; a second one of the same kind ends the program as usual. A signal that was
// ignored, as nohup does, stays ignored. At most one object at a time.
class StopSignal {
  public:
    StopSignal();
    ~StopSignal();
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;
    StopSignal(StopSignal&&) = delete;
    StopSignal& operator=(StopSignal&&) = delete;

    bool was_raised() const;

  private:
    static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};

    std::array<struct sigaction, kSignals.size()> old_ = {};
};

}  // namespace vae
