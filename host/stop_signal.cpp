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
    sigaction(SIGINT, &action, &old_interrupt_);
    sigaction(SIGTERM, &action, &old_terminate_);
}

StopSignal::~StopSignal() {
    sigaction(SIGINT, &old_interrupt_, nullptr);
    sigaction(SIGTERM, &old_terminate_, nullptr);
}

bool StopSignal::was_raised() const {
    return stop_was_raised != 0;
}

}  // namespace vae
