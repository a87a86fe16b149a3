#include "host/cuda_module.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

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

// The library that dlopen did not find, as dlerror says it: "NAME: cannot open …"; empty when
// something else was wrong, or when it is the file itself.
std::string missing_library(const std::filesystem::path& file, const std::string& error) {
    const std::string library = error.substr(0, error.find(':'));
    const bool is_dependency = library.find(file.string()) == std::string::npos &&
                               error.find("cannot open shared object file") != std::string::npos;
    return is_dependency ? library : "";
}

// Where the CUDA Toolkit keeps its libraries; the dynamic linker does not look there by itself.
std::vector<std::filesystem::path> toolkit_folders() {
    std::vector<std::filesystem::path> folders;
    const auto add = [&folders](const std::filesystem::path& toolkit) {
        for (const char* place : {"lib64", "lib"}) folders.push_back(toolkit / place);
    };
    for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
        const char* toolkit = std::getenv(variable);
        if (toolkit != nullptr && *toolkit != '\0') add(toolkit);
    }
    add("/usr/local/cuda");
    return folders;
}

// A library and what it needs, some of which only toolkits may have. Null, and why in `error`.
void* open_library(const std::filesystem::path& file, int depth, std::string& error);

// Once it is loaded, whoever needs it by that name has it.
bool open_from_toolkit(const std::string& library, int depth) {
    std::string ignored;
    for (const auto& folder : toolkit_folders()) {
        std::error_code status;
        const auto file = folder / library;
        if (!std::filesystem::exists(file, status)) continue;
        if (open_library(file, depth, ignored) != nullptr) return true;
    }
    return false;
}

void* open_library(const std::filesystem::path& file, int depth, std::string& error) {
    std::string last_missing;
    while (true) {
        if (void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
        const char* reason = dlerror();
        error = reason == nullptr ? "unknown reason" : reason;
        const std::string missing = missing_library(file, error);
        if (missing.empty() || missing == last_missing || depth == 0) return nullptr;
        if (!open_from_toolkit(missing, depth - 1)) return nullptr;
        last_missing = missing;
    }
}

std::string explain_load_failure(const std::filesystem::path& file, const std::string& error) {
    const std::string library = missing_library(file, error);
    if (!library.empty()) {
        return fmt::format(
            "the CUDA libraries ({}) were not found; install the CUDA Toolkit's libraries, name "
            "the toolkit in CUDA_HOME or their folder in LD_LIBRARY_PATH",
            library);
    }
    return fmt::format("the CUDA backend cannot be loaded: {}", error);
}

Module open_module() {
    constexpr int kDeepest = 4;  // libraries that libraries need
    Module module;
    const auto path = find_module();
    if (!path) {
        module.problem = "this build has no CUDA backend";
        return module;
    }
    // Never closed: backends and the CUDA runtime live in it until the process ends.
    std::string error;
    void* handle = open_library(*path, kDeepest, error);
    if (handle == nullptr) {
        module.problem = explain_load_failure(*path, error);
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
