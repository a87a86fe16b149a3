// Who wants to know of each kernel and product when it is given to a stream: how long each takes.
#pragma once

#include <cuda_runtime.h>

#include <utility>

namespace vae::kernels {

class LaunchObserver {
  public:
    virtual ~LaunchObserver() = default;
    // Right before and after; `what` names the launcher and lives as long as the program.
    virtual void before(const char* what, cudaStream_t stream) = 0;
    virtual void after(cudaStream_t stream) = 0;
};

// The calling thread's; null: nobody.
inline LaunchObserver*& launch_observer() {
    thread_local LaunchObserver* observer = nullptr;
    return observer;
}

// While it lives the observer sees what this thread launches.
class ObservedLaunches {
  public:
    explicit ObservedLaunches(LaunchObserver& observer)
        : before_(std::exchange(launch_observer(), &observer)) {}
    ~ObservedLaunches() { launch_observer() = before_; }
    ObservedLaunches(const ObservedLaunches&) = delete;
    ObservedLaunches& operator=(const ObservedLaunches&) = delete;
    ObservedLaunches(ObservedLaunches&&) = delete;
    ObservedLaunches& operator=(ObservedLaunches&&) = delete;

  private:
    LaunchObserver* before_;
};

// Calls launch(), and tells the observer if there is one.
template <class Launch>
void observed(const char* what, cudaStream_t stream, const Launch& launch) {
    LaunchObserver* const observer = launch_observer();
    if (observer != nullptr) observer->before(what, stream);
    launch();
    if (observer != nullptr) observer->after(stream);
}

}  // namespace vae::kernels
