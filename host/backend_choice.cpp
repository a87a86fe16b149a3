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

void check_precision_of_cpu(const TrainConfig& train) {
    if (train.precision == Precision::automatic || train.precision == Precision::fp32) return;
    throw InputError(
        fmt::format("train.precision = \"{}\" is of a GPU, and the CPU computes in fp32; use "
                    "\"auto\" or \"fp32\", or --backend cuda",
                    name_of(train.precision)));
}

bool is_cpu(const std::string& name) {
    return name == "cpu" || name == "cpu-double" ||
           (name == "auto" && !cuda_status().reason.empty());
}

}  // namespace

const std::vector<std::string>& backend_names() {
    static const std::vector<std::string> names = {"auto", "cuda", "cpu", "cpu-double"};
    return names;
}

ChosenBackend choose_backend(const std::string& name, const Config& config,
                             const ParameterLayout& layout, const std::string& option) {
    if (is_cpu(name)) check_precision_of_cpu(config.train);
    if (name == "cpu") return describe(make_cpu_backend(config, layout), "");
    if (name == "cpu-double") return describe(make_cpu_double_backend(config, layout), "");
    if (name != "auto" && name != "cuda") {
        throw InputError(fmt::format("{} {}: there is no such backend; use one of {}", option, name,
                                     fmt::join(backend_names(), ", ")));
    }
    const std::string reason = cuda_status().reason;
    if (reason.empty()) {
        auto backend = make_cuda_backend(config, layout);
        const char* why = name == "auto" ? " (a GPU is there)" : "";
        const std::string precision =
            fmt::format(" in {}{}, {:.0f} MiB of its memory", name_of(backend->precision()), why,
                        static_cast<double>(backend->device_bytes()) / 1048576.0);
        return describe(std::move(backend), precision);
    }
    if (name == "cuda") {
        throw RunError(fmt::format("{0} cuda: {1}; use {0} cpu or auto", option, reason));
    }
    return describe(make_cpu_backend(config, layout), fmt::format(" (no GPU: {})", reason));
}

Config config_for(const std::string& name, Config config) {
    if (is_cpu(name)) config.train.precision = Precision::automatic;
    return config;
}

}  // namespace vae
