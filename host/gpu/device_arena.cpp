#include "host/gpu/device_arena.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <stdexcept>
#include <string_view>

#include "host/error.h"
#include "kernels/launch.h"

namespace vae::gpu {
namespace {

constexpr const char* kSeparateVariable = "VAE_SEPARATE_ARRAYS";

bool wants_separate_arrays() {
    const char* const value = std::getenv(kSeparateVariable);
    return value != nullptr && std::string_view(value) == "1";
}

}  // namespace

DeviceMemory device_memory() {
    DeviceMemory memory;
    kernels::cuda_check(cudaMemGetInfo(&memory.free, &memory.total), "cudaMemGetInfo");
    return memory;
}

std::string memory_text(std::size_t bytes) {
    constexpr double kMiB = 1048576.0;
    const double size = static_cast<double>(bytes) / kMiB;
    return size < 1024 ? fmt::format("{:.1f} MiB", size) : fmt::format("{:.1f} GiB", size / 1024);
}

DeviceArena::~DeviceArena() {
    for (void* allocation : allocations_) (void)cudaFree(allocation);
}

std::size_t DeviceArena::reserve(std::size_t bytes, const char* what) {
    if (is_allocated_) throw std::logic_error("an array that came after its arena's memory");
    constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max() / 2;
    if (bytes > kMost - bytes_) throw RunError(fmt::format("{}: its size overflows", what));
    places_.push_back({.offset = bytes_, .bytes = bytes, .what = what});
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return places_.size() - 1;
}

void DeviceArena::allocate(const Advice& advice, std::size_t headroom) {
    if (is_allocated_) throw std::logic_error("an arena is allocated once");
    is_allocated_ = true;
    if (places_.empty()) return;
    if (bytes_ + headroom > device_memory().free) throw_full(advice, headroom);
    if (wants_separate_arrays()) {
        for (Place& place : places_) place.address = allocate_bytes(place.bytes, advice);
        return;
    }
    auto* const base = static_cast<std::byte*>(allocate_bytes(bytes_, advice));
    for (Place& place : places_) place.address = base + place.offset;
}

void* DeviceArena::allocate_bytes(std::size_t bytes, const Advice& advice) {
    allocations_.reserve(allocations_.size() + 1);
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        throw_full(advice, 0);
    }
    kernels::cuda_check(status, "cudaMalloc");
    allocations_.push_back(memory);
    return memory;
}

void* DeviceArena::at(std::size_t place) const {
    void* const address = places_.at(place).address;
    if (address == nullptr) throw std::logic_error("an array that is used before it has memory");
    return address;
}

std::pair<std::string, std::size_t> DeviceArena::largest_use() const {
    std::map<std::string, std::size_t> uses;
    for (const Place& place : places_) uses[place.what] += place.bytes;
    return *std::max_element(uses.begin(), uses.end(),
                             [](const auto& a, const auto& b) { return a.second < b.second; });
}

void DeviceArena::throw_full(const Advice& advice, std::size_t headroom) const {
    const DeviceMemory memory = device_memory();
    const auto [use, use_bytes] = largest_use();
    std::string needs = memory_text(bytes_);
    if (use != owner_) needs += fmt::format(" (of which {} {})", use, memory_text(use_bytes));
    if (headroom > 0) needs += fmt::format(", and the driver {} beside it", memory_text(headroom));
    throw RunError(
        fmt::format("the CUDA device is out of memory: {} needs {}; {} of {} are free; {}", owner_,
                    needs, memory_text(memory.free), memory_text(memory.total),
                    advice ? advice() : "free the device"));
}

}  // namespace vae::gpu
