// Owners of CUDA memory, streams and events.
#pragma once

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstddef>
#include <span>
#include <utility>

#include "host/error.h"
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

// size elements of T on the device, not initialised. Throws RunError when the device is full.
template <class T>
class DeviceArray {
  public:
    DeviceArray() = default;
    // `what` names the array's use in the error of a full device.
    DeviceArray(std::size_t size, const char* what) : size_(size) {
        if (size == 0) return;
        const cudaError_t status = cudaMalloc(reinterpret_cast<void**>(&data_), bytes());
        if (status == cudaErrorMemoryAllocation) throw_full(what);
        cuda_check(status, "cudaMalloc");
    }
    ~DeviceArray() { (void)cudaFree(data_); }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    DeviceArray(DeviceArray&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    DeviceArray& operator=(DeviceArray&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }

    void zero(const Stream& stream) {
        if (size_ == 0) return;
        cuda_check(cudaMemsetAsync(data_, 0, bytes(), stream.get()), "cudaMemsetAsync");
    }

    // Both wait until the copy is done, so that host memory of any kind may be used.
    void upload(std::span<const T> source, const Stream& stream) {
        if (source.empty()) return;
        cuda_check(cudaMemcpyAsync(data_, source.data(), source.size_bytes(),
                                   cudaMemcpyHostToDevice, stream.get()),
                   "cudaMemcpyAsync to the device");
        stream.synchronize();
    }
    void download(std::span<T> target, const Stream& stream) const {
        if (target.empty()) return;
        cuda_check(cudaMemcpyAsync(target.data(), data_, target.size_bytes(),
                                   cudaMemcpyDeviceToHost, stream.get()),
                   "cudaMemcpyAsync from the device");
        stream.synchronize();
    }

  private:
    [[noreturn]] void throw_full(const char* what) const {
        (void)cudaGetLastError();
        std::size_t free_bytes = 0;
        std::size_t total_bytes = 0;
        (void)cudaMemGetInfo(&free_bytes, &total_bytes);
        throw RunError(fmt::format(
            "the CUDA device is out of memory: {} needs {:.1f} MiB and {:.1f} of {:.1f} MiB are "
            "free; use a smaller train.batch, fewer draws of z or a smaller model, or free the "
            "device",
            what, static_cast<double>(bytes()) / 1048576.0,
            static_cast<double>(free_bytes) / 1048576.0,
            static_cast<double>(total_bytes) / 1048576.0));
    }

    T* data_ = nullptr;
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
