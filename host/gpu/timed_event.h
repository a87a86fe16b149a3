// An event that knows when the device reached it.
#pragma once

#include "host/gpu/device_array.h"

namespace vae::gpu {

class TimedEvent {
  public:
    TimedEvent() { cuda_check(cudaEventCreate(&event_), "cudaEventCreate"); }
    ~TimedEvent() { (void)cudaEventDestroy(event_); }
    TimedEvent(const TimedEvent&) = delete;
    TimedEvent& operator=(const TimedEvent&) = delete;
    TimedEvent(TimedEvent&&) = delete;
    TimedEvent& operator=(TimedEvent&&) = delete;

    void record(const Stream& stream) {
        cuda_check(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
    }
    // In a stream that captures: reached at each replay of the graph, and of no use to order it.
    void record_in_graph(cudaStream_t stream) {
        cuda_check(cudaEventRecordWithFlags(event_, stream, cudaEventRecordExternal),
                   "cudaEventRecordWithFlags");
    }
    // Waits for this event; the start was reached before.
    double milliseconds_since(const TimedEvent& start) const {
        cuda_check(cudaEventSynchronize(event_), "cudaEventSynchronize");
        float milliseconds = 0;
        cuda_check(cudaEventElapsedTime(&milliseconds, start.event_, event_),
                   "cudaEventElapsedTime");
        return static_cast<double>(milliseconds);
    }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace vae::gpu
