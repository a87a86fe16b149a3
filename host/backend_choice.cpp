#include "host/backend_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host/cuda_module.h"
#include "host/error.h"

namespace vae {

namespace {

ChosenBackend describe(std::unique_ptr<Backend> backend, const std::string& why) {
    std::string note = fmt::format("{} on {}{}", backend->name(), backend->device(), why);
    return {std::move(backend), std::move(note)};
}

}  // namespace

const std::vector<std::string>& backend_names() {
    static const std::vector<std::string> names = {"auto", "cuda", "cpu", "cpu-double"};
    return names;
}

ChosenBackend choose_backend(const std::string& name, const Config& config,
                             const ParameterLayout& layout, const std::string& option) {
    if (name == "cpu") return describe(make_cpu_backend(config, layout), "");
    if (name == "cpu-double") return describe(make_cpu_double_backend(config, layout), "");
    if (name != "auto" && name != "cuda") {
        throw InputError(fmt::format("{} {}: there is no such backend; use one of {}", option, name,
                                     fmt::join(backend_names(), ", ")));
    }
    const std::string reason = cuda_status().reason;
    if (reason.empty()) {
        const char* why = name == "auto" ? " (a GPU is there)" : "";
        return describe(make_cuda_backend(config, layout), why);
    }
    if (name == "cuda") {
        throw RunError(fmt::format("{0} cuda: {1}; use {0} cpu or auto", option, reason));
    }
    return describe(make_cpu_backend(config, layout), fmt::format(" (no GPU: {})", reason));
}

}  // namespace vae
