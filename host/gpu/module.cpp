// What the CUDA module exports to the driver: host/cuda_module.h.
#include "host/cuda_module.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <exception>
#include <string>

#include "host/gpu/cuda_backend.h"
#include "host/gpu/plan_tuning.h"
#include "kernels/device_code.h"

namespace vae::gpu {
namespace {

std::string version_text(int version) {
    return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Properties alone: asking more would start a context on a device that will not be used.
CudaDevice describe(int index) {
    cudaDeviceProp properties = {};
    kernels::cuda_check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    return {.name = properties.name,
            .major = properties.major,
            .minor = properties.minor,
            .multiprocessors = properties.multiProcessorCount,
            .memory_bytes = properties.totalGlobalMem};
}

// Why the device that the backend would use cannot run this build; empty if it can.
std::string problem_of_first(const CudaDevice& device) {
    kernels::cuda_check(cudaSetDevice(0), "cudaSetDevice");
    const cudaError_t status = kernels::code_for_current_device();
    const bool is_other_code = status == cudaErrorNoKernelImageForDevice ||
                               status == cudaErrorInvalidDeviceFunction ||
                               status == cudaErrorUnsupportedPtxVersion;
    if (!is_other_code) {
        kernels::cuda_check(status, "starting the device");
        return {};
    }
    return fmt::format(
        "{} (compute capability {}.{}) cannot run this build: {}; build with "
        "-DVAE_CUDA_ARCHITECTURES={}{}, of at least 75",
        device.name, device.major, device.minor, cudaGetErrorString(status), device.major,
        device.minor);
}

void fill_status(CudaStatus& status) {
    int version = 0;
    kernels::cuda_check(cudaRuntimeGetVersion(&version), "cudaRuntimeGetVersion");
    status.runtime = version_text(version);
    status.cublaslt = cublasLtGetVersion();
    // 0 without a driver.
    kernels::cuda_check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
    if (version == 0) {
        status.reason = "there is no NVIDIA driver";
        return;
    }
    status.driver = version_text(version);
    int count = 0;
    const cudaError_t counted = cudaGetDeviceCount(&count);
    if (counted != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        const bool is_absent = counted == cudaSuccess || counted == cudaErrorNoDevice;
        status.reason = is_absent ? "there is no CUDA device" : cudaGetErrorString(counted);
        return;
    }
    for (int index = 0; index < count; ++index) status.devices.push_back(describe(index));
    status.reason = problem_of_first(status.devices.front());
}

}  // namespace
}  // namespace vae::gpu

extern "C" {

// CudaStatusFunction. A failure becomes the reason; devices found before it stay.
__attribute__((visibility("default"))) void vae_cuda_status(vae::CudaStatus& status) {
    try {
        vae::gpu::fill_status(status);
    } catch (const std::exception& error) {
        status.reason = error.what();
    }
}

// CudaBackendFunction. The caller owns the result; throws as CudaBackend's constructor.
__attribute__((visibility("default"))) vae::Backend* vae_cuda_backend(
    const vae::Config& config, const vae::ParameterLayout& layout) {
    return new vae::gpu::CudaBackend(config, layout);
}

// CudaTuneFunction.
__attribute__((visibility("default"))) void vae_cuda_tune(const vae::Config& config,
                                                          const vae::ParameterLayout& layout,
                                                          const vae::Splits& splits,
                                                          vae::TuningReport& report) {
    report = vae::gpu::tune_run(config, layout, splits);
}

}  // extern "C"
