// Allocation, copies and fills of the CUDA runtime.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "runtime.h"

namespace emulation {
namespace {

constexpr std::align_val_t kAlignment{256};  // what cudaMalloc promises
constexpr int kPoison = 0xff;                // bytes of a NaN

enum class Place { device, pinned, pageable, outside };

// Where [pointer, pointer + size) lies; outside if it begins in an allocation and leaves it.
Place place_of(const void* pointer, std::size_t size) {
    const auto& allocations = runtime().allocations;
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return Place::pageable;
    const auto& [start, allocation] = *--next;
    if (address >= start + std::max<std::size_t>(allocation.size, 1)) return Place::pageable;
    if (size > start + allocation.size - address) return Place::outside;
    return allocation.kind == MemoryKind::device ? Place::device : Place::pinned;
}

cudaError_t allocate(void** out, std::size_t size, MemoryKind kind, const char* who) {
    Runtime& device = runtime();
    if (out == nullptr) return cudaErrorInvalidValue;
    *out = nullptr;
    if (const cudaError_t status = check_no_capture(who); status != cudaSuccess) return status;
    if (size == 0) return cudaSuccess;
    const std::size_t used = std::min(device.device_memory, device.device_bytes);
    if (kind == MemoryKind::device && size > device.device_memory - used) {
        return refuse(cudaErrorMemoryAllocation,
                      fmt::format("{}: {} bytes are more than what is free", who, size));
    }
    void* const bytes = ::operator new(size, kAlignment, std::nothrow);
    if (bytes == nullptr) return cudaErrorMemoryAllocation;
    std::memset(bytes, kPoison, size);
    device.allocations[reinterpret_cast<std::uintptr_t>(bytes)] = {size, kind};
    if (kind == MemoryKind::device) device.device_bytes += size;
    *out = bytes;
    return cudaSuccess;
}

cudaError_t release(void* pointer, MemoryKind kind, const char* who) {
    if (pointer == nullptr) return cudaSuccess;
    Runtime& device = runtime();
    const auto found = device.allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
    if (found == device.allocations.end() || found->second.kind != kind) {
        return refuse(cudaErrorInvalidValue,
                      fmt::format("{}: {} was not allocated so, or is freed already", who,
                                  static_cast<const void*>(pointer)));
    }
    if (kind == MemoryKind::device) device.device_bytes -= found->second.size;
    device.allocations.erase(found);
    ::operator delete(pointer, kAlignment);
    return cudaSuccess;
}

// Freeing waits for the device, as the real functions do for memory of these kinds.
cudaError_t release_when_idle(void* pointer, MemoryKind kind, const char* who) {
    if (pointer == nullptr) return cudaSuccess;
    if (const cudaError_t status = check_no_capture(who); status != cudaSuccess) return status;
    run_all();
    return release(pointer, kind, who);
}

// `height` rows of `width` bytes, `pitch` bytes apart.
struct Copy {
    void* to = nullptr;
    std::size_t to_pitch = 0;
    const void* from = nullptr;
    std::size_t from_pitch = 0;
    std::size_t width = 0;
    std::size_t height = 1;

    bool is_empty() const { return width == 0 || height == 0; }
    std::size_t to_size() const { return (height - 1) * to_pitch + width; }
    std::size_t from_size() const { return (height - 1) * from_pitch + width; }
    void run() const {
        for (std::size_t row = 0; row < height; ++row) {
            std::memmove(static_cast<char*>(to) + row * to_pitch,
                         static_cast<const char*>(from) + row * from_pitch, width);
        }
    }
};

// Whether a copy of this kind may read (write) memory of this place.
bool is_side(Place place, bool on_device) {
    return on_device ? place == Place::device : place == Place::pinned || place == Place::pageable;
}

cudaError_t check_copy(const Copy& copy, cudaMemcpyKind kind, const char* who) {
    if (copy.to == nullptr || copy.from == nullptr) return cudaErrorInvalidValue;
    if (copy.height > 1 && (copy.to_pitch < copy.width || copy.from_pitch < copy.width)) {
        return cudaErrorInvalidPitchValue;
    }
    const Place to = place_of(copy.to, copy.to_size());
    const Place from = place_of(copy.from, copy.from_size());
    if (to == Place::outside || from == Place::outside) {
        return refuse(cudaErrorInvalidValue,
                      fmt::format("{}: the {} leaves its allocation", who,
                                  to == Place::outside ? "destination" : "source"));
    }
    bool to_device = to == Place::device;
    bool from_device = from == Place::device;
    switch (kind) {
        case cudaMemcpyDefault:
            break;
        case cudaMemcpyHostToHost:
        case cudaMemcpyHostToDevice:
        case cudaMemcpyDeviceToHost:
        case cudaMemcpyDeviceToDevice:
            to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
            from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
            break;
        default:
            return cudaErrorInvalidMemcpyDirection;
    }
    if (!is_side(to, to_device) || !is_side(from, from_device)) {
        return refuse(cudaErrorInvalidValue,
                      fmt::format("{}: the {} is not on the side that the kind of copy says", who,
                                  is_side(to, to_device) ? "source" : "destination"));
    }
    return cudaSuccess;
}

// A copy without a stream works on the default stream: after the streams that it blocks.
cudaError_t copy_now(const Copy& copy, cudaMemcpyKind kind, const char* who) {
    if (const cudaError_t status = check_no_capture(who); status != cudaSuccess) return status;
    if (copy.is_empty()) return cudaSuccess;
    if (const cudaError_t status = check_copy(copy, kind, who); status != cudaSuccess) {
        return status;
    }
    if (place_of(copy.to, 1) == Place::device && place_of(copy.from, 1) == Place::device) {
        return refuse(
            cudaErrorNotSupported,
            fmt::format("{}: a device does not wait for copies within it; name a stream", who));
    }
    run_blocking_streams();
    if (runtime().broken == cudaSuccess) copy.run();
    return cudaSuccess;
}

// Pageable memory is read before the call returns, and written before it returns.
cudaError_t copy_on_stream(const Copy& copy, cudaMemcpyKind kind, cudaStream_t stream,
                           const char* who) {
    if (const cudaError_t status = check_stream(stream, who); status != cudaSuccess) return status;
    if (copy.is_empty()) return cudaSuccess;
    if (const cudaError_t status = check_copy(copy, kind, who); status != cudaSuccess) {
        return status;
    }
    const bool reads_pageable = place_of(copy.from, 1) == Place::pageable;
    const bool writes_pageable = place_of(copy.to, 1) == Place::pageable;
    if (stream->capture != nullptr && (reads_pageable || writes_pageable)) {
        stream->capture->is_valid = false;
        return refuse(cudaErrorStreamCaptureUnsupported,
                      fmt::format("{}: host memory in a captured copy must be pinned", who));
    }
    if (reads_pageable) {
        const auto* const first = static_cast<const std::byte*>(copy.from);
        auto staged = std::make_shared<std::vector<std::byte>>(first, first + copy.from_size());
        enqueue(stream, {cudaGraphNodeTypeMemcpy, [copy, staged] {
                             Copy from_staged = copy;
                             from_staged.from = staged->data();
                             from_staged.run();
                         }});
    } else {
        enqueue(stream, {cudaGraphNodeTypeMemcpy, [copy] { copy.run(); }});
    }
    if (writes_pageable) run_stream(stream);
    return cudaSuccess;
}

struct Fill {
    void* to = nullptr;
    std::size_t pitch = 0;
    int value = 0;
    std::size_t width = 0;
    std::size_t height = 1;

    bool is_empty() const { return width == 0 || height == 0; }
    void run() const {
        for (std::size_t row = 0; row < height; ++row) {
            std::memset(static_cast<char*>(to) + row * pitch, value, width);
        }
    }
};

cudaError_t check_fill(const Fill& fill, const char* who) {
    if (fill.height > 1 && fill.pitch < fill.width) return cudaErrorInvalidPitchValue;
    const std::size_t size = (fill.height - 1) * fill.pitch + fill.width;
    const Place place = place_of(fill.to, size);
    if (place == Place::device || place == Place::pinned) return cudaSuccess;
    return refuse(cudaErrorInvalidValue,
                  fmt::format("{}: {} bytes at {} are not inside one allocation", who, size,
                              static_cast<const void*>(fill.to)));
}

cudaError_t fill_on_stream(const Fill& fill, cudaStream_t stream, const char* who) {
    if (const cudaError_t status = check_stream(stream, who); status != cudaSuccess) return status;
    if (fill.is_empty()) return cudaSuccess;
    if (const cudaError_t status = check_fill(fill, who); status != cudaSuccess) return status;
    enqueue(stream, {cudaGraphNodeTypeMemset, [fill] { fill.run(); }});
    return cudaSuccess;
}

}  // namespace

bool is_device_range(const void* pointer, std::size_t size) {
    return place_of(pointer, size) == Place::device;
}

bool is_visible_to_device(const void* pointer) {
    const auto& allocations = runtime().allocations;
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return false;
    const auto& [start, allocation] = *--next;
    return address <= start + allocation.size;
}

}  // namespace emulation

using emulation::call;
using emulation::Copy;
using emulation::MemoryKind;
using emulation::Runtime;
using emulation::WhenBroken;

extern "C" {

cudaError_t cudaMalloc(void** pointer, std::size_t size) {
    return call("cudaMalloc", [&](Runtime&) {
        return emulation::allocate(pointer, size, MemoryKind::device, "cudaMalloc");
    });
}

cudaError_t cudaFree(void* pointer) {
    return call(
        "cudaFree",
        [&](Runtime&) {
            return emulation::release_when_idle(pointer, MemoryKind::device, "cudaFree");
        },
        WhenBroken::run_anyway);
}

cudaError_t cudaMallocAsync(void** pointer, std::size_t size, cudaStream_t stream) {
    return call("cudaMallocAsync", [&](Runtime&) {
        const cudaError_t status = emulation::check_stream(stream, "cudaMallocAsync");
        if (status != cudaSuccess) return status;
        return emulation::allocate(pointer, size, MemoryKind::device, "cudaMallocAsync");
    });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
    return call("cudaFreeAsync", [&](Runtime&) {
        cudaError_t status = emulation::check_stream(stream, "cudaFreeAsync");
        if (status == cudaSuccess) status = emulation::check_no_capture("cudaFreeAsync");
        if (status != cudaSuccess) return status;
        if (!emulation::is_device_range(pointer, 1)) return cudaErrorInvalidValue;
        emulation::enqueue(stream, {cudaGraphNodeTypeMemFree, [pointer] {
                                        emulation::release(pointer, MemoryKind::device,
                                                           "cudaFreeAsync");
                                    }});
        return cudaSuccess;
    });
}

cudaError_t cudaMallocHost(void** pointer, std::size_t size) {
    return call("cudaMallocHost", [&](Runtime&) {
        return emulation::allocate(pointer, size, MemoryKind::pinned, "cudaMallocHost");
    });
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t size, unsigned flags) {
    return call("cudaHostAlloc", [&](Runtime&) {
        constexpr unsigned kKnown =
            cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
        if ((flags & ~kKnown) != 0) return cudaErrorInvalidValue;
        return emulation::allocate(pointer, size, MemoryKind::pinned, "cudaHostAlloc");
    });
}

cudaError_t cudaFreeHost(void* pointer) {
    return call(
        "cudaFreeHost",
        [&](Runtime&) {
            return emulation::release_when_idle(pointer, MemoryKind::pinned, "cudaFreeHost");
        },
        WhenBroken::run_anyway);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind) {
    return call("cudaMemcpy", [&](Runtime&) {
        return emulation::copy_now(Copy{to, size, from, size, size}, kind, "cudaMemcpy");
    });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return call("cudaMemcpyAsync", [&](Runtime&) {
        return emulation::copy_on_stream(Copy{to, size, from, size, size}, kind, stream,
                                         "cudaMemcpyAsync");
    });
}

cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                         std::size_t width, std::size_t height, cudaMemcpyKind kind) {
    return call("cudaMemcpy2D", [&](Runtime&) {
        return emulation::copy_now(Copy{to, to_pitch, from, from_pitch, width, height}, kind,
                                   "cudaMemcpy2D");
    });
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
    return call("cudaMemcpy2DAsync", [&](Runtime&) {
        return emulation::copy_on_stream(Copy{to, to_pitch, from, from_pitch, width, height}, kind,
                                         stream, "cudaMemcpy2DAsync");
    });
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t size, cudaStream_t stream) {
    return call("cudaMemsetAsync", [&](Runtime&) {
        return emulation::fill_on_stream({to, size, value, size}, stream, "cudaMemsetAsync");
    });
}

cudaError_t cudaMemset2DAsync(void* to, std::size_t pitch, int value, std::size_t width,
                              std::size_t height, cudaStream_t stream) {
    return call("cudaMemset2DAsync", [&](Runtime&) {
        return emulation::fill_on_stream({to, pitch, value, width, height}, stream,
                                         "cudaMemset2DAsync");
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    return call("cudaPointerGetAttributes", [&](Runtime&) {
        if (attributes == nullptr) return cudaErrorInvalidValue;
        *attributes = {};
        const emulation::Place place = emulation::place_of(pointer, 1);
        const bool on_device = place == emulation::Place::device;
        const bool on_host = place == emulation::Place::pinned;
        attributes->type = on_device ? cudaMemoryTypeDevice
                           : on_host ? cudaMemoryTypeHost
                                     : cudaMemoryTypeUnregistered;
        if (on_device || on_host) attributes->devicePointer = const_cast<void*>(pointer);
        if (on_host) attributes->hostPointer = const_cast<void*>(pointer);
        return cudaSuccess;
    });
}

}  // extern "C"
