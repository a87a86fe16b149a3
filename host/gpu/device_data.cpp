#include "host/gpu/device_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "host/error.h"
#include "host/memory_text.h"

namespace vae::gpu {
namespace {

// What examples leave of the memory that is free, for what comes later: graphs, and code that is
// loaded at its first use; at least DeviceArena::kHeadroom.
constexpr std::size_t kMarginShare = 16;

constexpr std::array kSplits = {Split::train, Split::validation, Split::test};

std::size_t bytes_of(const Splits& splits) {
    std::size_t bytes = 0;
    for (const Split split : kSplits) bytes += splits.of(split).size * row_bytes(splits.of(split));
    return bytes;
}

// Why examples that may be anywhere are streamed; empty: they fit on the device.
std::string reason_to_stream(const Splits& splits) {
    const std::size_t free = device_memory().free;
    const std::size_t needed = bytes_of(splits);
    const std::size_t margin = std::max(free / kMarginShare, DeviceArena::kHeadroom);
    const std::size_t usable = free - std::min(free, margin);
    if (needed <= usable) return {};
    return fmt::format("all of it is {}, and {} of the device's memory can be had for it",
                       memory_text(needed), memory_text(usable));
}

}  // namespace

void DeviceData::clear() {
    stream_.synchronize();  // nothing reads them any more
    is_set_ = false;
    streamed_.reset();
    for (ResidentData& split : resident_) split = {};
    splits_ = {};
    note_.clear();
}

void DeviceData::set(const Splits& splits, DataPlacement placement, std::size_t window_rows) {
    clear();
    splits_ = splits;
    std::string reason;
    if (placement == DataPlacement::streamed) reason = "as data.placement says";
    if (placement == DataPlacement::automatic) reason = reason_to_stream(splits);
    if (reason.empty()) {
        make_resident();
    } else {
        streamed_ = std::make_unique<StreamedData>(splits, window_rows, stream_);
        note_ = fmt::format("streamed from the host in windows of up to {}: {}",
                            memory_text(window_rows * row_bytes(splits)), reason);
    }
    is_set_ = true;
}

void DeviceData::make_resident() {
    try {
        for (const Split split : kSplits) {
            resident_[static_cast<std::size_t>(split)] = ResidentData(splits_.of(split), stream_);
        }
    } catch (const RunError& full) {
        throw RunError(
            fmt::format("{}; or stream the data: --data-placement streamed", full.what()));
    }
}

const Dataset& DeviceData::of(Split split) const {
    if (!is_set_) throw std::logic_error("CudaBackend: used before set_data");
    return splits_.of(split);
}

void DeviceData::gather(Split split, std::span<const std::uint32_t> rows,
                        const std::uint32_t* index, std::uint32_t offset, const PixelSource& source,
                        const GatheredBatch& to) const {
    const Dataset& data = of(split);
    if (streamed_ == nullptr) {
        resident_[static_cast<std::size_t>(split)].gather(
            index, offset, static_cast<int>(rows.size()), source.pixels, source.noise, to, stream_);
        return;
    }
    const std::size_t pixels = data.shape.pixels();
    for (std::size_t first = 0; first < rows.size(); first += streamed_->window_rows()) {
        const auto window =
            rows.subspan(first, std::min(streamed_->window_rows(), rows.size() - first));
        streamed_->load(split, window);
        const GatheredBatch part = {
            .x = to.x + first * pixels,
            .rounded = to.rounded == nullptr ? nullptr : to.rounded + first * pixels};
        streamed_->gather(split, streamed_->slots(), index + first, data.first_index + offset,
                          static_cast<int>(window.size()), source.pixels, source.noise, part,
                          stream_);
    }
}

void DeviceData::gather_step(const std::uint32_t* index, const std::uint32_t* slots, int rows,
                             const PixelSource& source, const GatheredBatch& to,
                             const Stream& stream) const {
    if (streamed_ == nullptr) {
        resident_[static_cast<std::size_t>(Split::train)].gather(index, 0, rows, source.pixels,
                                                                 source.noise, to, stream);
        return;
    }
    streamed_->gather(Split::train, slots, index, of(Split::train).first_index, rows, source.pixels,
                      source.noise, to, stream);
}

}  // namespace vae::gpu
