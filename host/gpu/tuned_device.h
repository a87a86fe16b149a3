// Whose measurements these are, and where they are kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace vae::gpu {

// What was measured holds for it alone: another GPU or another library may not know an algorithm,
// and takes other times.
struct TunedDevice {
    std::string gpu;         // "NVIDIA H100 80GB HBM3"
    std::string capability;  // "9.0"
    std::uint64_t cublaslt = 0;

    bool operator==(const TunedDevice&) const = default;
};

// The current device and this library. Throws kernels::CudaError.
TunedDevice current_tuned_device();

// $XDG_CACHE_HOME/vae/matmul-plans.json, or below ~/.cache; nothing without a home.
std::optional<std::filesystem::path> tuning_file_path();

}  // namespace vae::gpu
