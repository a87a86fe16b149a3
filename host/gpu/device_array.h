// Owners of CUDA memory, streams and events.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <limits>
#include <memory>
#include <span>

#include "host/error.h"
#include "host/gpu/device_arena.h"
#include "kernels/launch.h"

namespace vae::gpu {

using kernels::cuda_check;

// A stream of its own, never the default one. Destroying it waits for nothing.
class Stream {
  public:
    Stream() {
        cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    }
    ~Stream() { (void)cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    Stream(Stream&&) = delete;
    Stream& operator=(Stream&&) = delete;

    cudaStream_t get() const { return stream_; }
    void synchronize() const {
        cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    }

  private:
    cudaStream_t stream_ = nullptr;
};

class Event {
  public:
    Event() {
        cuda_check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
    }
    ~Event() { (void)cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    Event(Event&&) = delete;
    Event& operator=(Event&&) = delete;

    void record(const Stream& stream) {
        cuda_check(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
    }
    // What the stream is given from now on runs after what was recorded.
    void hold(const Stream& stream) const {
        cuda_check(cudaStreamWaitEvent(stream.get(), event_, cudaEventWaitDefault),
                   "cudaStreamWaitEvent");
    }
    // Returns at once if nothing was recorded yet.
    void synchronize() const { cuda_check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }

  private:
    cudaEvent_t event_ = nullptr;
};

// size elements of T, not initialised: in an arena, which outlives it and is allocated before it is
// used, or in memory of its own. Of no elements the address is null.
template <class T>
class DeviceArray {
  public:
    DeviceArray() = default;
    // `what` names the array's use in the error of a full device, RunError. In memory of its own:
    DeviceArray(std::size_t size, const char* what)
        : own_(std::make_unique<DeviceArena>(what)), arena_(own_.get()), size_(size) {
        if (size == 0) return;
        place_ = own_->reserve(bytes_of(size), what);
        own_->allocate();
    }
    DeviceArray(DeviceArena& arena, std::size_t size, const char* what)
        : arena_(&arena),
          place_(size == 0 ? 0 : arena.reserve(bytes_of(size), what)),
          size_(size) {}
    ~DeviceArray() = default;
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    DeviceArray(DeviceArray&&) noexcept = default;
    DeviceArray& operator=(DeviceArray&&) noexcept = default;

    T* data() { return address(); }
    const T* data() const { return address(); }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }

    void zero(const Stream& stream) {
        if (size_ == 0) return;
        cuda_check(cudaMemsetAsync(data(), 0, bytes(), stream.get()), "cudaMemsetAsync");
    }

    // Both wait until the copy is done, so that host memory of any kind may be used.
    void upload(std::span<const T> source, const Stream& stream) {
        if (source.empty()) return;
        cuda_check(cudaMemcpyAsync(data(), source.data(), source.size_bytes(),
                                   cudaMemcpyHostToDevice, stream.get()),
                   "cudaMemcpyAsync to the device");
        stream.synchronize();
    }
    void download(std::span<T> target, const Stream& stream) const {
        if (target.empty()) return;
        cuda_check(cudaMemcpyAsync(target.data(), data(), target.size_bytes(),
                                   cudaMemcpyDeviceToHost, stream.get()),
                   "cudaMemcpyAsync from the device");
        stream.synchronize();
    }

  private:
    static std::size_t bytes_of(std::size_t size) {
        if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
            throw RunError("an array for the CUDA device whose size overflows");
        }
        return size * sizeof(T);
    }
    T* address() const { return size_ == 0 ? nullptr : static_cast<T*>(arena_->at(place_)); }

    std::unique_ptr<DeviceArena> own_;
    DeviceArena* arena_ = nullptr;
    std::size_t place_ = 0;
    std::size_t size_ = 0;
};

// size elements of T in page-locked host memory, for copies that do not wait.
template <class T>
class PinnedArray {
  public:
    explicit PinnedArray(std::size_t size) {
        cuda_check(
            cudaHostAlloc(reinterpret_cast<void**>(&data_), size * sizeof(T), cudaHostAllocDefault),
            "cudaHostAlloc");
    }
    ~PinnedArray() { (void)cudaFreeHost(data_); }
    PinnedArray(const PinnedArray&) = delete;
    PinnedArray& operator=(const PinnedArray&) = delete;
    PinnedArray(PinnedArray&&) = delete;
    PinnedArray& operator=(PinnedArray&&) = delete;

    T* data() { return data_; }

  private:
    T* data_ = nullptr;
};

}  // namespace vae::gpu
