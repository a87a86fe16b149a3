#include "host/gpu/what_fits.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <vector>

namespace vae::gpu {
namespace {

// Tries configurations against what is free.
class Candidates {
  public:
    Candidates(const ParameterLayout& layout, const SelectedDevice& device)
        : layout_(layout), device_(device), free_(device_memory().free) {}

    bool fits(const Config& config, Precision precision) const {
        SelectedDevice device = device_;
        device.precision = precision;
        const std::size_t bytes = CudaBackend::bytes_needed(config, layout_, device);
        return bytes + DeviceArena::kHeadroom <= free_;
    }

  private:
    const ParameterLayout& layout_;
    const SelectedDevice& device_;
    const std::size_t free_;
};

std::optional<std::string> batch_that_fits(const Candidates& candidates, Config config,
                                           Precision precision) {
    while (config.train.batch / 2 >= config.train.micro_batches) {
        config.train.batch /= 2;
        if (candidates.fits(config, precision)) {
            return fmt::format("train.batch = {}", config.train.batch);
        }
    }
    return std::nullopt;
}

std::optional<std::string> parts_that_fit(const Candidates& candidates, Config config,
                                          Precision precision) {
    if (whole_batch_setting(config) != nullptr) return std::nullopt;
    while (config.train.micro_batches <= config.train.batch / 2) {
        config.train.micro_batches *= 2;
        if (candidates.fits(config, precision)) {
            return fmt::format("train.micro_batches = {}", config.train.micro_batches);
        }
    }
    return std::nullopt;
}

}  // namespace

std::string what_fits(const Config& config, const ParameterLayout& layout,
                      const SelectedDevice& device) {
    const Candidates candidates(layout, device);
    std::vector<std::string> changes;
    const auto add = [&](std::optional<std::string> change) {
        if (change) changes.push_back(std::move(*change));
    };
    add(parts_that_fit(candidates, config, device.precision));
    if (device.has_tf32 && device.precision != Precision::bf16 &&
        candidates.fits(config, Precision::bf16)) {
        changes.emplace_back("train.precision = \"bf16\"");
    }
    add(batch_that_fits(candidates, config, device.precision));
    if (changes.empty()) {
        return "no smaller batch would fit: free the device, or use a smaller model";
    }
    return fmt::format("what would fit: {}", fmt::join(changes, ", or "));
}

}  // namespace vae::gpu
