// The fastest algorithms that were measured, as the file of all GPUs of a home has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>

#include "host/gpu/matmul_product.h"
#include "host/gpu/tuned_device.h"

namespace vae::gpu {

// The words of a cublasLtMatmulAlgo_t, and what was measured with it.
struct MeasuredAlgorithm {
    using Words = std::array<std::uint64_t, 8>;
    Words words = {};
    double microseconds = 0;
    int nodes = 0;  // of a graph
};

class MatmulCache {
  public:
    // Reads what the file has of this device. An entry that is not understood is none.
    explicit MatmulCache(const TunedDevice& device);

    const MeasuredAlgorithm* find(const MatmulProduct& product) const;

  private:
    std::map<MatmulProduct, MeasuredAlgorithm> algorithms_;
};

// Puts algorithms of a device into the file, in the place of those of the same products: see
// save_tuning().
std::optional<std::filesystem::path> save_matmul_algorithms(
    const TunedDevice& device, const std::map<MatmulProduct, MeasuredAlgorithm>& algorithms);

}  // namespace vae::gpu
