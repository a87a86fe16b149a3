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
    std::string driver;        // e.g. "13.0"; empty when there is none
    std::string runtime;       // CUDA runtime of the module; empty when the module is not there
    std::size_t cublaslt = 0;  // version of the library, as it numbers itself; 0 without the module
    std::string reason;        // why the first device cannot be used; empty when it can
};

// The fastest algorithm of a matrix product of a dense layer, as it was measured.
struct TunedProduct {
    std::string product;  // forward, backward-input or backward-weight, and its epilogue
    int rows = 0;
    int in = 0;
    int out = 0;
    std::string types;      // fp32, tf32, bf16 or bf16-to-fp32
    std::string algorithm;  // in the library's own numbers
    double microseconds = 0;
    double teraflops = 0;  // a second
    int nodes = 0;         // of a graph
    int candidates = 0;
    double gain = 0;  // time of what would be taken unmeasured, over this time
};

// Training steps in one plan, as they were measured.
struct TunedPlan {
    std::string plan;          // as Backend::plan() says it, or of one that failed as train.plan
    double microseconds = 0;   // a step
    bool is_counted = false;   // what "auto" finds where nothing is kept
    bool is_kept = false;      // what "auto" takes from now on, if there is a file
    std::string problem = {};  // why it was not measured; empty when it was
};

struct TuningReport {
    std::vector<TunedProduct> products;
    std::vector<TunedPlan> plans;  // none where there was no choice
    std::string file;              // where they are kept; empty where there is no home
};

// Asked of the driver once. Never throws for a missing module, driver or device: says so in reason.
// The device that would be used is the first; reason is about it.
const CudaStatus& cuda_status();

// Throws RunError with the reason when there is no usable device.
std::unique_ptr<Backend> make_cuda_backend(const Config& config, const ParameterLayout& layout);

// Measures the products of a run of this configuration, and its training steps in each plan if
// train.plan is "auto", and keeps what is the fastest for later runs. Throws RunError as
// make_cuda_backend, and when the device or the disk is full; InputError for a precision that the
// device does not have, and, before anything is measured, for a file that cannot be written.
TuningReport tune_cuda(const Config& config, const ParameterLayout& layout, const Splits& splits);

// What the module exports (extern "C", host/gpu/module.cpp).
inline constexpr const char* kCudaModuleFile = "libvae_cuda.so";
inline constexpr const char* kCudaModuleVariable = "VAE_CUDA_MODULE";  // overrides where it is
using CudaStatusFunction = void(CudaStatus&);                          // "vae_cuda_status"
using CudaBackendFunction = Backend*(const Config&, const ParameterLayout&);  // "vae_cuda_backend"
using CudaTuneFunction = void(const Config&, const ParameterLayout&, const Splits&,
                              TuningReport&);  // "vae_cuda_tune"

}  // namespace vae
