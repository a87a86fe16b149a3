// The CUDA backend is a shared module, loaded when asked for, so that the program starts where
// there is no driver and no CUDA library.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "host/backend.h"

namespace vae {

struct CudaDevice {
    std::string name;
    int major = 0;  // compute capability
    int minor = 0;
    int multiprocessors = 0;
    std::size_t memory_bytes = 0;
};

struct CudaStatus {
    std::vector<CudaDevice> devices;
    std::string driver;   // e.g. "13.0"; empty when there is none
    std::string runtime;  // CUDA runtime of the module; empty when the module is not there
    std::string reason;   // why the first device cannot be used; empty when it can
};

// Asked of the driver once. Never throws for a missing module, driver or device: says so in reason.
// The device that would be used is the first; reason is about it.
const CudaStatus& cuda_status();

// Throws RunError with the reason when there is no usable device.
std::unique_ptr<Backend> make_cuda_backend(const Config& config, const ParameterLayout& layout);

// What the module exports (extern "C", host/gpu/module.cpp).
inline constexpr const char* kCudaModuleFile = "libvae_cuda.so";
inline constexpr const char* kCudaModuleVariable = "VAE_CUDA_MODULE";  // overrides where it is
using CudaStatusFunction = void(CudaStatus&);                          // "vae_cuda_status"
using CudaBackendFunction = Backend*(const Config&, const ParameterLayout&);  // "vae_cuda_backend"

}  // namespace vae
