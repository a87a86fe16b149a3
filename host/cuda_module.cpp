#include "host/cuda_module.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <optional>
#include <system_error>

#include "host/error.h"

namespace vae {

namespace {

struct Module {
    CudaStatusFunction* status = nullptr;
    CudaBackendFunction* backend = nullptr;
    CudaTuneFunction* tune = nullptr;
    std::string problem;  // why it could not be loaded; empty when it was
};

// Where the module is, or nothing. $VAE_CUDA_MODULE is taken at its word.
std::optional<std::filesystem::path> find_module() {
    if (const char* path = std::getenv(kCudaModuleVariable); path != nullptr && *path != '\0') {
        return path;
    }
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    if (error) return std::nullopt;
    const auto folder = program.parent_path();
    for (const auto& place : {folder, folder.parent_path() / "lib" / "vae"}) {
        if (std::filesystem::exists(place / kCudaModuleFile, error)) return place / kCudaModuleFile;
    }
    return std::nullopt;
}

// dlerror names the library that is missing before the first colon.
std::string explain_load_failure(const std::filesystem::path& path, const std::string& error) {
    const std::string library = error.substr(0, error.find(':'));
    const bool is_dependency = library.find(path.string()) == std::string::npos &&
                               error.find("cannot open shared object file") != std::string::npos;
    if (is_dependency) {
        return fmt::format(
            "the CUDA libraries ({}) were not found; install the CUDA Toolkit's "
            "libraries or name their folder in LD_LIBRARY_PATH",
            library);
    }
    return fmt::format("the CUDA backend cannot be loaded: {}", error);
}

Module open_module() {
    Module module;
    const auto path = find_module();
    if (!path) {
        module.problem = "this build has no CUDA backend";
        return module;
    }
    // Never closed: backends and the CUDA runtime live in it until the process ends.
    void* handle = dlopen(path->c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* error = dlerror();
        module.problem = explain_load_failure(*path, error == nullptr ? "unknown reason" : error);
        return module;
    }
    module.status = reinterpret_cast<CudaStatusFunction*>(dlsym(handle, "vae_cuda_status"));
    module.backend = reinterpret_cast<CudaBackendFunction*>(dlsym(handle, "vae_cuda_backend"));
    module.tune = reinterpret_cast<CudaTuneFunction*>(dlsym(handle, "vae_cuda_tune"));
    if (module.status == nullptr || module.backend == nullptr || module.tune == nullptr) {
        module.problem = fmt::format("{} is not a CUDA backend of this program", path->string());
    }
    return module;
}

const Module& loaded_module() {
    static const Module module = open_module();
    return module;
}

}  // namespace

namespace {

CudaStatus ask_status() {
    CudaStatus status;
    try {
        const Module& module = loaded_module();
        if (!module.problem.empty()) {
            status.reason = module.problem;
        } else {
            module.status(status);
            if (status.devices.empty() && status.reason.empty()) status.reason = "no CUDA device";
        }
    } catch (const std::exception& error) {
        status.reason = error.what();
    }
    return status;
}

}  // namespace

const CudaStatus& cuda_status() {
    static const CudaStatus status = ask_status();
    return status;
}

std::unique_ptr<Backend> make_cuda_backend(const Config& config, const ParameterLayout& layout) {
    const CudaStatus& status = cuda_status();
    if (!status.reason.empty()) throw RunError(status.reason);
    return std::unique_ptr<Backend>(loaded_module().backend(config, layout));
}

TuningReport tune_cuda(const Config& config, const ParameterLayout& layout, const Splits& splits) {
    const CudaStatus& status = cuda_status();
    if (!status.reason.empty()) throw RunError(status.reason);
    TuningReport report;
    loaded_module().tune(config, layout, splits, report);
    return report;
}

}  // namespace vae
