// Kernel launches of the CUDA runtime.
#include <fmt/format.h>

#include <cstring>
#include <new>

#include "runtime.h"

namespace emulation {
namespace {

constexpr unsigned kMaxGridRows = 65535;
constexpr unsigned kMaxGridColumns = 0x7fffffff;
constexpr unsigned kMaxBlockDepth = 64;
constexpr std::align_val_t kArgumentAlignment{64};

cudaError_t check_shape(dim3 grid, dim3 block) {
    const bool grid_fits = grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= kMaxGridColumns &&
                           grid.y <= kMaxGridRows && grid.z <= kMaxGridRows;
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    const bool block_fits = block.x <= kMaxThreadsPerBlock && block.y <= kMaxThreadsPerBlock &&
                            block.z <= kMaxBlockDepth && threads >= 1 &&
                            threads <= kMaxThreadsPerBlock;
    if (grid_fits && block_fits) return cudaSuccess;
    return refuse(cudaErrorInvalidConfiguration,
                  fmt::format("launch: no device runs a grid of {}x{}x{} blocks of {}x{}x{}",
                              grid.x, grid.y, grid.z, block.x, block.y, block.z));
}

cudaError_t check_attributes(const cudaLaunchConfig_t& config) {
    for (unsigned i = 0; i < config.numAttrs; ++i) {
        switch (config.attrs[i].id) {
            // Changes nothing where one kernel runs after the other.
            case cudaLaunchAttributeIgnore:
            case cudaLaunchAttributePriority:
            case cudaLaunchAttributeProgrammaticStreamSerialization:
                break;
            default:
                return refuse(cudaErrorNotSupported,
                              fmt::format("launch: attribute {} is not emulated",
                                          static_cast<int>(config.attrs[i].id)));
        }
    }
    return cudaSuccess;
}

bool is_programmatic(const cudaLaunchConfig_t& config) {
    for (unsigned i = 0; i < config.numAttrs; ++i) {
        const cudaLaunchAttribute& attribute = config.attrs[i];
        if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization) {
            return attribute.val.programmaticStreamSerializationAllowed != 0;
        }
    }
    return false;
}

std::shared_ptr<const void> copy_argument(const void* from, std::size_t size) {
    void* const copy = ::operator new(size, kArgumentAlignment);
    std::memcpy(copy, from, size);
    return {copy, [](const void* bytes) {
                ::operator delete(const_cast<void*>(bytes), kArgumentAlignment);
            }};
}

// The number of a pointer, from 1, to memory that the device does not see; 0 if there is none.
std::size_t foreign_pointer(const Kernel& kernel) {
    for (std::size_t i = 0; i < kernel.signature->parameters; ++i) {
        if (!kernel.signature->are_pointers[i]) continue;
        const void* const pointer = *static_cast<void* const*>(kernel.arguments[i].get());
        if (pointer != nullptr && !is_visible_to_device(pointer)) return i + 1;
    }
    return 0;
}

void run_kernel(const Kernel& kernel) {
    Runtime& device = runtime();
    ++device.launches.try_emplace(kernel.name).first->second;
    if (kernel.is_programmatic) ++device.early_launches.try_emplace(kernel.name).first->second;
    if (const std::size_t parameter = foreign_pointer(kernel); parameter != 0) {
        break_device(cudaErrorIllegalAddress,
                     fmt::format("{}: parameter {} points to memory that is not the device's",
                                 kernel.name, parameter));
        return;
    }
    const std::string failure = execute(kernel, device.turns);
    if (!failure.empty()) break_device(cudaErrorLaunchFailure, failure);
}

const std::string& cached_name(Runtime& device, const void* function) {
    std::string& name = device.names[function];
    if (name.empty()) name = name_of_kernel(function);
    return name;
}

cudaError_t launch(Runtime& device, const cudaLaunchConfig_t& config, const void* function,
                   void** arguments) {
    cudaError_t status = check_stream(config.stream, "launch");
    if (status == cudaSuccess) status = check_shape(config.gridDim, config.blockDim);
    if (status == cudaSuccess) status = check_attributes(config);
    if (status != cudaSuccess) return status;
    const auto signature = device.signatures.find(function);
    if (signature == device.signatures.end()) return cudaErrorInvalidDeviceFunction;
    const auto limit = device.shared_limits.find(function);
    const int allowed = limit == device.shared_limits.end() ? kMaxSharedBytes : limit->second;
    if (config.dynamicSmemBytes > static_cast<std::size_t>(allowed)) {
        return refuse(cudaErrorInvalidValue,
                      fmt::format("launch: {} bytes of shared memory are more than the {} that the "
                                  "kernel may have",
                                  config.dynamicSmemBytes, allowed));
    }
    auto kernel = std::make_shared<Kernel>();
    kernel->name = cached_name(device, function);
    kernel->function = function;
    kernel->signature = signature->second;
    kernel->grid = config.gridDim;
    kernel->block = config.blockDim;
    kernel->shared_bytes = config.dynamicSmemBytes;
    kernel->is_programmatic = is_programmatic(config);
    for (std::size_t i = 0; i < signature->second->parameters; ++i) {
        kernel->arguments.push_back(copy_argument(arguments[i], signature->second->sizes[i]));
    }
    enqueue(config.stream,
            {cudaGraphNodeTypeKernel, [kernel] { run_kernel(*kernel); }, kernel->is_programmatic});
    return cudaSuccess;
}

}  // namespace

void remember_signature(const void* kernel, const KernelSignature& signature) {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    device.signatures[kernel] = &signature;
}

}  // namespace emulation

using emulation::call;
using emulation::Runtime;

extern "C" {

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
    return call("cudaLaunchKernelExC", [&](Runtime& device) {
        if (config == nullptr || function == nullptr) return cudaErrorInvalidValue;
        return emulation::launch(device, *config, function, arguments);
    });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
    return call("cudaFuncSetAttribute", [&](Runtime& device) {
        if (function == nullptr) return cudaErrorInvalidDeviceFunction;
        switch (attribute) {
            case cudaFuncAttributeMaxDynamicSharedMemorySize:
                if (value < 0 || value > emulation::kMaxOptInSharedBytes) {
                    return cudaErrorInvalidValue;
                }
                device.shared_limits[function] = value;
                return cudaSuccess;
            case cudaFuncAttributePreferredSharedMemoryCarveout:
                return cudaSuccess;
            default:
                return emulation::refuse(cudaErrorNotSupported,
                                         "cudaFuncSetAttribute: this attribute is not emulated");
        }
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
    return call("cudaFuncGetAttributes", [&](const Runtime& device) {
        if (attributes == nullptr) return cudaErrorInvalidValue;
        if (function == nullptr) return cudaErrorInvalidDeviceFunction;
        const auto limit = device.shared_limits.find(function);
        *attributes = {};
        attributes->maxThreadsPerBlock = emulation::kMaxThreadsPerBlock;
        attributes->maxDynamicSharedSizeBytes =
            limit == device.shared_limits.end() ? emulation::kMaxSharedBytes : limit->second;
        // Compiled for the device as it is.
        const int architecture = 10 * device.capability_major + device.capability_minor;
        attributes->binaryVersion = architecture;
        attributes->ptxVersion = architecture;
        return cudaSuccess;
    });
}

}  // extern "C"
