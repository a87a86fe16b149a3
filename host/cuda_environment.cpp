#include "host/cuda_environment.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace vae {
namespace {

struct Variable {
    const char* name;
    const char* effect;
};

// cuBLAS reads them itself, and no call says whether it did.
constexpr std::array kVariables = {
    Variable{"NVIDIA_TF32_OVERRIDE",
             "cuBLAS then takes TF32, or leaves it, whatever precision is asked for"},
    Variable{"CUBLAS_EMULATE_SINGLE_PRECISION",
             "cuBLAS may then make FP32 products of bf16 ones, and what fp32 shows is not FP32's"},
    Variable{"CUBLAS_EMULATION_STRATEGY",
             "cuBLAS then decides otherwise which products it makes of those of other types"}};

}  // namespace

void warn_of_cuda_environment() {
    for (const auto& [name, effect] : kVariables) {
        const char* const value = std::getenv(name);
        if (value == nullptr || *value == '\0') continue;
        fmt::print(stderr, "vae: warning: {}={} is in the environment: {}; unset it\n", name, value,
                   effect);
    }
}

}  // namespace vae
