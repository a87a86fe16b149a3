// All device memory of an owner as one allocation: arrays reserve their places, then the arena is
// allocated, once. What it will take is known before.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace vae::gpu {

struct DeviceMemory {
    std::size_t free = 0;  // bytes
    std::size_t total = 0;
};

// Of the current device. Throws kernels::CudaError.
DeviceMemory device_memory();

class DeviceArena {
  public:
    // Of each array, as cudaMalloc aligns.
    static constexpr std::size_t kAlignment = 256;
    // Left to the driver beside an arena: code that is loaded at its first use, and graphs. By
    // reasoning, not measured.
    static constexpr std::size_t kHeadroom = std::size_t{64} << 20;

    // `owner` names the memory's use in the error of a full device: "a traced step".
    explicit DeviceArena(std::string owner) : owner_(std::move(owner)) {}
    ~DeviceArena();
    DeviceArena(const DeviceArena&) = delete;
    DeviceArena& operator=(const DeviceArena&) = delete;
    DeviceArena(DeviceArena&&) = delete;
    DeviceArena& operator=(DeviceArena&&) = delete;

    // A place of at least one byte. `what` names the array. Throws std::logic_error after
    // allocate.
    std::size_t reserve(std::size_t bytes, const char* what);
    // Of all that was reserved, with alignment.
    std::size_t bytes() const { return bytes_; }
    // The memory is not initialised. Throws RunError when the device has less free than the arena
    // and the headroom, which ends with the advice. An empty arena needs no memory.
    //
    // With VAE_SEPARATE_ARRAYS=1 in the environment each array is an allocation of its own, for
    // tools that look for accesses outside of them.
    using Advice = std::function<std::string()>;
    void allocate(const Advice& advice = {}, std::size_t headroom = 0);
    // Where a place is. Throws std::logic_error before allocate.
    void* at(std::size_t place) const;

  private:
    struct Place {
        std::size_t offset = 0;
        std::size_t bytes = 0;
        const char* what = nullptr;
        void* address = nullptr;
    };

    [[noreturn]] void throw_full(const Advice& advice, std::size_t headroom) const;
    // The use that has the most bytes in all, and how many.
    std::pair<std::string, std::size_t> largest_use() const;
    void* allocate_bytes(std::size_t bytes);

    const std::string owner_;
    std::vector<Place> places_;
    std::size_t bytes_ = 0;
    bool is_allocated_ = false;
    std::vector<void*> allocations_;
};

}  // namespace vae::gpu
