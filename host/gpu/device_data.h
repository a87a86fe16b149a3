// The data of a backend: all of it on the device, or streamed to it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "host/config.h"
#include "host/dataset.h"
#include "host/gpu/device_array.h"
#include "host/gpu/resident_data.h"
#include "host/gpu/streamed_data.h"

namespace vae::gpu {

// How binary pixels are drawn, or that they are not.
struct PixelSource {
    kernels::Pixels pixels = kernels::Pixels::grey;
    kernels::NoiseStream noise = {};
};

class DeviceData {
  public:
    explicit DeviceData(const Stream& stream) : stream_(stream) {}

    // Frees what the splits have on the device. Waits.
    void clear();
    // Puts the splits where `placement` says; automatic: on the device if they fit into what is
    // free there, and leave a part of it. Streamed ones come in windows of up to window_rows
    // examples. Waits. Throws RunError when the device is full.
    void set(const Splits& splits, DataPlacement placement, std::size_t window_rows);

    // std::logic_error before `set`.
    const Dataset& of(Split split) const;
    // Null if they are on the device.
    StreamedData* streamed() const { return streamed_.get(); }
    // As Backend::data_note.
    const std::string& note() const { return note_; }

    // x[r] = example offset + index[r] of a split, which is rows[r] on the host; index is on the
    // device.
    void gather(Split split, std::span<const std::uint32_t> rows, const std::uint32_t* index,
                std::uint32_t offset, const PixelSource& source, const GatheredBatch& to) const;
    // x[r] = training example index[r], for r < rows, which is in the ring's row slots[r] if
    // examples are streamed.
    void gather_step(const std::uint32_t* index, const std::uint32_t* slots, int rows,
                     const PixelSource& source, const GatheredBatch& to,
                     const Stream& stream) const;

  private:
    void make_resident();

    const Stream& stream_;
    Splits splits_;
    bool is_set_ = false;
    std::array<ResidentData, 3> resident_;    // unless they are streamed
    std::unique_ptr<StreamedData> streamed_;  // if they are
    std::string note_;
};

}  // namespace vae::gpu
