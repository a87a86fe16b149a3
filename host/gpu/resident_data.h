// A split's examples on the device, as bytes or floats, and batches gathered from them.
#pragma once

#include <cstdint>

#include "host/dataset.h"
#include "host/gpu/device_array.h"
#include "kernels/gather.h"
#include "kernels/noise.h"

namespace vae::gpu {

// Where a batch goes, on the device.
struct GatheredBatch {
    float* x = nullptr;                // [rows, pixels]
    kernels::Bf16* rounded = nullptr;  // the same in bf16; null: it is not wanted
};

class ResidentData {
  public:
    ResidentData() = default;
    // Copies the data set to the device and waits. Throws RunError when the device is full.
    ResidentData(const Dataset& data, const Stream& stream);

    // x[r] = example offset + index[r], for r < rows; index is on the device. Binary pixels are
    // drawn at the example's global index in `noise`.
    void gather(const std::uint32_t* index, std::uint32_t offset, int rows, kernels::Pixels pixels,
                const kernels::NoiseStream& noise, const GatheredBatch& to,
                const Stream& stream) const;

  private:
    DeviceArray<std::uint8_t> bytes_;  // one of the two is empty
    DeviceArray<float> floats_;
    int pixels_ = 0;
    std::uint32_t first_index_ = 0;
};

}  // namespace vae::gpu
