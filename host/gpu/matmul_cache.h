// The file of the fastest algorithms that were measured, of all GPUs of a home.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "host/gpu/matmul_product.h"

namespace vae::gpu {

// What an algorithm is for: another GPU or another library may not know it.
struct MatmulDevice {
    std::string gpu;         // "NVIDIA H100 80GB HBM3"
    std::string capability;  // "9.0"
    std::uint64_t cublaslt = 0;

    bool operator==(const MatmulDevice&) const = default;
};

// The words of a cublasLtMatmulAlgo_t, and what was measured with it.
struct MeasuredAlgorithm {
    using Words = std::array<std::uint64_t, 8>;
    Words words = {};
    double microseconds = 0;
    int nodes = 0;  // of a graph
};

// $XDG_CACHE_HOME/vae/matmul-plans.json, or below ~/.cache; nothing without a home.
std::optional<std::filesystem::path> matmul_cache_path();

class MatmulCache {
  public:
    // Reads what the file has of this device. A file that is not there, or that nobody can read, is
    // an empty one, and so is an entry that is not understood.
    explicit MatmulCache(const MatmulDevice& device);

    const MeasuredAlgorithm* find(const MatmulProduct& product) const;

  private:
    std::map<MatmulProduct, MeasuredAlgorithm> algorithms_;
};

// Puts algorithms of a device into the file, in the place of those of the same products; all else
// in it stays. Returns the file, or nothing where there is no home. Throws RunError when it cannot
// be written.
std::optional<std::filesystem::path> save_matmul_algorithms(
    const MatmulDevice& device, const std::map<MatmulProduct, MeasuredAlgorithm>& algorithms);

}  // namespace vae::gpu
