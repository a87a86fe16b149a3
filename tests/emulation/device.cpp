// Device queries and errors of the CUDA runtime.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime.h"

namespace emulation {
namespace {

constexpr char kDeviceName[] = "Emulated CUDA device (CPU)";
constexpr int kMultiprocessors = 8;
constexpr int kThreadsPerMultiprocessor = 2048;
constexpr int kBlocksPerMultiprocessor = 32;
constexpr int kSharedPerMultiprocessor = 228 * 1024;
constexpr int kReservedSharedPerBlock = 1024;
constexpr int kRegisters = 65536;
constexpr int kLevel2Bytes = 1024 * 1024;  // small: who measures overwrites it again and again

struct ErrorText {
    cudaError_t status;
    const char* name;
    const char* text;
};

constexpr std::array kErrors = {
    ErrorText{cudaSuccess, "cudaSuccess", "no error"},
    ErrorText{cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    ErrorText{cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    ErrorText{cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    ErrorText{cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
              "invalid configuration argument"},
    ErrorText{cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer",
              "invalid device pointer"},
    ErrorText{cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
              "invalid copy direction for memcpy"},
    ErrorText{cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
              "CUDA driver version is insufficient for CUDA runtime version"},
    ErrorText{cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction",
              "invalid device function"},
    ErrorText{cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    ErrorText{cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    ErrorText{cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle",
              "invalid resource handle"},
    ErrorText{cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    ErrorText{cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
              "an illegal memory access was encountered"},
    ErrorText{cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
              "too many resources requested for launch"},
    ErrorText{cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    ErrorText{cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
    ErrorText{cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    ErrorText{cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
              "operation not permitted when stream is capturing"},
    ErrorText{cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
              "operation failed due to a previous error during capture"},
    ErrorText{cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
              "operation would result in a merge of separate capture sequences"},
    ErrorText{cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
              "capture was not ended in the same stream as it began"},
    ErrorText{cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
              "capturing stream has unjoined work"},
    ErrorText{cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
              "dependency created on uncaptured work in another stream"},
    ErrorText{cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
              "operation would make the legacy stream depend on a capturing blocking stream"},
    ErrorText{cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
              "operation not permitted on an event last recorded in a capturing stream"},
    ErrorText{cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText* find_error(cudaError_t status) {
    const auto found = std::find_if(kErrors.begin(), kErrors.end(),
                                    [&](const ErrorText& each) { return each.status == status; });
    return found == kErrors.end() ? nullptr : &*found;
}

cudaError_t check_device(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

void describe(cudaDeviceProp& properties) {
    properties = {};
    static_assert(sizeof kDeviceName <= sizeof properties.name);
    std::memcpy(properties.name, kDeviceName, sizeof kDeviceName);
    properties.totalGlobalMem = runtime().device_memory;
    properties.sharedMemPerBlock = kMaxSharedBytes;
    properties.sharedMemPerBlockOptin = kMaxOptInSharedBytes;
    properties.sharedMemPerMultiprocessor = kSharedPerMultiprocessor;
    properties.reservedSharedMemPerBlock = kReservedSharedPerBlock;
    properties.regsPerBlock = kRegisters;
    properties.regsPerMultiprocessor = kRegisters;
    properties.warpSize = kWarpSize;
    properties.maxThreadsPerBlock = kMaxThreadsPerBlock;
    constexpr int kMaxBlock[3] = {1024, 1024, 64};
    constexpr int kMaxGrid[3] = {0x7fffffff, 65535, 65535};
    std::copy_n(kMaxBlock, 3, properties.maxThreadsDim);
    std::copy_n(kMaxGrid, 3, properties.maxGridSize);
    properties.totalConstMem = 65536;
    properties.major = runtime().capability_major;
    properties.minor = runtime().capability_minor;
    properties.multiProcessorCount = kMultiprocessors;
    properties.maxThreadsPerMultiProcessor = kThreadsPerMultiprocessor;
    properties.maxBlocksPerMultiProcessor = kBlocksPerMultiprocessor;
    properties.l2CacheSize = kLevel2Bytes;
    properties.concurrentKernels = 1;
    properties.asyncEngineCount = 1;
    properties.unifiedAddressing = 1;
    properties.streamPrioritiesSupported = 1;
}

cudaError_t attribute(cudaDeviceAttr which, int& value) {
    switch (which) {
        case cudaDevAttrMaxThreadsPerBlock:
            value = kMaxThreadsPerBlock;
            return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlock:
            value = kMaxSharedBytes;
            return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            value = kMaxOptInSharedBytes;
            return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            value = kSharedPerMultiprocessor;
            return cudaSuccess;
        case cudaDevAttrWarpSize:
            value = kWarpSize;
            return cudaSuccess;
        case cudaDevAttrMultiProcessorCount:
            value = kMultiprocessors;
            return cudaSuccess;
        case cudaDevAttrMaxThreadsPerMultiProcessor:
            value = kThreadsPerMultiprocessor;
            return cudaSuccess;
        case cudaDevAttrMaxBlocksPerMultiprocessor:
            value = kBlocksPerMultiprocessor;
            return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor:
            value = runtime().capability_major;
            return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor:
            value = runtime().capability_minor;
            return cudaSuccess;
        case cudaDevAttrClusterLaunch:
        case cudaDevAttrCooperativeLaunch:
        case cudaDevAttrMemoryPoolsSupported:
            value = 0;
            return cudaSuccess;
        case cudaDevAttrL2CacheSize:
            value = kLevel2Bytes;
            return cudaSuccess;
        default:
            return refuse(cudaErrorNotSupported,
                          fmt::format("cudaDeviceGetAttribute: attribute {} is not emulated",
                                      static_cast<int>(which)));
    }
}

cudaError_t occupancy(int* blocks, const void* function, int block_size, std::size_t shared) {
    if (blocks == nullptr || function == nullptr || block_size < 1) return cudaErrorInvalidValue;
    *blocks = 0;
    if (block_size > kMaxThreadsPerBlock || shared > kMaxOptInSharedBytes) return cudaSuccess;
    const int by_shared =
        kSharedPerMultiprocessor / (static_cast<int>(shared) + kReservedSharedPerBlock);
    const int by_threads = kThreadsPerMultiprocessor / block_size;
    *blocks = std::min({by_threads, by_shared, kBlocksPerMultiprocessor});
    return cudaSuccess;
}

template <class T>
cudaError_t answer(T* out, const T& value) {
    if (out == nullptr) return cudaErrorInvalidValue;
    *out = value;
    return cudaSuccess;
}

}  // namespace
}  // namespace emulation

using emulation::call;
using emulation::Runtime;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    return call("cudaGetDeviceCount", [&](Runtime&) { return emulation::answer(count, 1); });
}

cudaError_t cudaGetDevice(int* device) {
    return call("cudaGetDevice", [&](Runtime&) { return emulation::answer(device, 0); });
}

cudaError_t cudaSetDevice(int device) {
    return call("cudaSetDevice", [&](Runtime&) { return emulation::check_device(device); });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    return call("cudaGetDeviceProperties", [&](Runtime&) {
        if (properties == nullptr) return cudaErrorInvalidValue;
        const cudaError_t status = emulation::check_device(device);
        if (status == cudaSuccess) emulation::describe(*properties);
        return status;
    });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
    return call("cudaDeviceGetAttribute", [&](Runtime&) {
        if (value == nullptr) return cudaErrorInvalidValue;
        const cudaError_t status = emulation::check_device(device);
        return status == cudaSuccess ? emulation::attribute(which, *value) : status;
    });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    return call("cudaMemGetInfo", [&](const Runtime& device) {
        if (free == nullptr || total == nullptr) return cudaErrorInvalidValue;
        *free = device.device_memory - std::min(device.device_memory, device.device_bytes);
        *total = device.device_memory;
        return cudaSuccess;
    });
}

cudaError_t cudaDriverGetVersion(int* version) {
    return call("cudaDriverGetVersion",
                [&](Runtime&) { return emulation::answer(version, CUDART_VERSION); });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    return call("cudaRuntimeGetVersion",
                [&](Runtime&) { return emulation::answer(version, CUDART_VERSION); });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    return call("cudaDeviceGetStreamPriorityRange", [&](Runtime&) {
        if (least != nullptr) *least = 0;
        if (greatest != nullptr) *greatest = -5;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceSynchronize() {
    return call("cudaDeviceSynchronize", [](Runtime&) {
        const cudaError_t status = emulation::check_no_capture("cudaDeviceSynchronize");
        if (status == cudaSuccess) emulation::run_all();
        return status;
    });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void* function, int block_size, std::size_t shared, unsigned flags) {
    return call("cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", [&](Runtime&) {
        if (flags != cudaOccupancyDefault) return cudaErrorNotSupported;
        return emulation::occupancy(blocks, function, block_size, shared);
    });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int block_size, std::size_t shared) {
    return call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&](Runtime&) {
        return emulation::occupancy(blocks, function, block_size, shared);
    });
}

cudaError_t cudaGetLastError() {
    Runtime& device = emulation::runtime();
    const std::scoped_lock lock(device.mutex);
    const cudaError_t status = device.last_error;
    device.last_error = device.broken;
    return status;
}

cudaError_t cudaPeekAtLastError() {
    Runtime& device = emulation::runtime();
    const std::scoped_lock lock(device.mutex);
    return device.last_error;
}

const char* cudaGetErrorName(cudaError_t status) {
    const auto* const found = emulation::find_error(status);
    return found == nullptr ? "unrecognized error code" : found->name;
}

const char* cudaGetErrorString(cudaError_t status) {
    const auto* const found = emulation::find_error(status);
    return found == nullptr ? "unrecognized error code" : found->text;
}

}  // extern "C"
