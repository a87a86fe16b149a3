#include "host/stop_signal.h"

namespace vae {

namespace {

// A signal handler can reach nothing else.
volatile std::sig_atomic_t stop_was_raised = 0;

extern "C" void raise_stop(int) {
    stop_was_raised = 1;
}

}  // namespace

StopSignal::StopSignal() {
    stop_was_raised = 0;
    struct sigaction action = {};
    action.sa_handler = raise_stop;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
        sigaction(kSignals[i], nullptr, &old_[i]);
        if (old_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
    }
}

StopSignal::~StopSignal() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &old_[i], nullptr);
}

bool StopSignal::was_raised() const {
    return stop_was_raised != 0;
}

}  // namespace vae
