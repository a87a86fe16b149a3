// Real numbers on the device, stored as a training's precision says.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "host/gpu/device_array.h"
#include "kernels/reals.h"

namespace vae::gpu {

using kernels::Bf16;
using kernels::ConstReals;
using kernels::Reals;
using kernels::Storage;

// size numbers in an arena, not initialised.
class RealArray {
  public:
    RealArray() = default;
    RealArray(DeviceArena& arena, std::size_t size, Storage storage, const char* what)
        : storage_(storage) {
        if (storage == Storage::bf16) {
            rounded_ = {arena, size, what};
        } else {
            floats_ = {arena, size, what};
        }
    }

    Reals get() {
        return storage_ == Storage::bf16 ? Reals(rounded_.data()) : Reals(floats_.data());
    }
    ConstReals get() const {
        return storage_ == Storage::bf16 ? ConstReals(rounded_.data()) : ConstReals(floats_.data());
    }

    // Waits. Exact: every bf16 is a float.
    void download(std::span<float> target, const Stream& stream) const {
        if (storage_ == Storage::fp32) return floats_.download(target, stream);
        std::vector<Bf16> values(target.size());
        rounded_.download(values, stream);
        for (std::size_t i = 0; i < values.size(); ++i) target[i] = __bfloat162float(values[i]);
    }

  private:
    Storage storage_ = Storage::fp32;
    DeviceArray<float> floats_;  // one of the two is empty
    DeviceArray<Bf16> rounded_;
};

}  // namespace vae::gpu
