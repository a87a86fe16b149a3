#include "host/gpu/streamed_data.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <variant>
#include <vector>

#include "host/gpu/range.h"

namespace vae::gpu {
namespace {

// Copied by one thread: more of them would not be there sooner.
constexpr std::size_t kParallelBytes = std::size_t{1} << 20;

void gather_rows(std::span<const std::byte> data, std::span<const std::uint32_t> rows,
                 std::size_t row_bytes, std::byte* to) {
    const std::size_t count = rows.size();
#pragma omp parallel for schedule(static) if (count * row_bytes >= kParallelBytes)
    for (std::size_t i = 0; i < count; ++i) {
        std::memcpy(to + i * row_bytes, data.data() + rows[i] * row_bytes, row_bytes);
    }
}

}  // namespace

StreamedData::StreamedData(const Splits& splits, std::size_t window_rows, const Stream& reader)
    : splits_(splits),
      window_rows_(window_rows),
      reader_(reader),
      ring_(2 * window_rows * row_bytes(splits), "the windows of streamed data"),
      slots_(3 * window_rows, "row indices"),
      step_slots_(window_rows, "row indices"),
      staging_{Staging(window_rows * row_bytes(splits)), Staging(window_rows * row_bytes(splits))} {
    std::vector<std::uint32_t> slots(slots_.size());
    for (std::size_t i = 0; i < slots.size(); ++i) {
        slots[i] = static_cast<std::uint32_t>(i % ring_rows());
    }
    slots_.upload(slots, reader_);
    expect_scattered_reads(splits.train);
}

// The window is written over what was read of the last but one, or earlier ones: two neighbours
// have no more rows than the ring. So the copy waits for the work that the reader had been given
// when the last window was loaded, and runs beside the work on that one. Where rows grow or shrink
// from one split to the next they lie elsewhere, and it waits for all work.
void StreamedData::load(Split split, std::span<const std::uint32_t> rows) {
    const Range range("a window of data");
    if (rows.size() > window_rows_) {
        throw std::invalid_argument("StreamedData: more examples than a window has");
    }
    const Dataset& data = splits_.of(split);
    const std::size_t bytes = row_bytes(data);
    expect_reads(data, rows);
    Staging& staging = staging_[windows_ % 2];
    const Staging& last = staging_[(windows_ + 1) % 2];
    staging.copied.synchronize();  // the staging memory may still be read
    gather_rows(stored_bytes(data), rows, bytes, staging.memory.data());

    staging.given.record(reader_);
    const bool is_alike = bytes == std::exchange(row_bytes_, bytes);
    (is_alike ? last : staging).given.hold(copying_);
    slot_ = next_slot_;
    const std::size_t to_end = std::min<std::size_t>(rows.size(), ring_rows() - slot_);
    copy(staging.memory.data(), to_end, slot_, bytes);
    copy(staging.memory.data() + to_end * bytes, rows.size() - to_end, 0, bytes);
    staging.copied.record(copying_);
    staging.copied.hold(reader_);
    next_slot_ = static_cast<std::uint32_t>((slot_ + rows.size()) % ring_rows());
    ++windows_;
}

void StreamedData::copy(const std::byte* from, std::size_t rows, std::size_t slot,
                        std::size_t row_bytes) {
    if (rows == 0) return;
    cuda_check(cudaMemcpyAsync(ring_.data() + slot * row_bytes, from, rows * row_bytes,
                               cudaMemcpyHostToDevice, copying_.get()),
               "cudaMemcpyAsync of a window of data");
}

void StreamedData::gather(Split split, const std::uint32_t* slots, const std::uint32_t* number,
                          std::uint32_t first_index, int rows, kernels::Pixels pixels,
                          const kernels::NoiseStream& noise, const GatheredBatch& to,
                          const Stream& stream) const {
    const Dataset& data = splits_.of(split);
    const int cols = static_cast<int>(data.shape.pixels());
    if (std::holds_alternative<ByteValues>(data.values)) {
        kernels::gather(reinterpret_cast<const std::uint8_t*>(ring_.data()), slots, number, rows,
                        cols, pixels, noise, first_index, to.x, to.rounded, stream.get());
    } else {
        kernels::gather(reinterpret_cast<const float*>(ring_.data()), slots, number, rows, cols,
                        pixels, noise, first_index, to.x, to.rounded, stream.get());
    }
}

}  // namespace vae::gpu
