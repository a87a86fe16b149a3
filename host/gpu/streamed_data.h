// Examples that stay on the host, as many as there may be. Those that come next are on the device,
// in a ring of rows that is filled window after window while the device works.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "host/dataset.h"
#include "host/gpu/device_array.h"
#include "host/gpu/resident_data.h"
#include "host/stored_examples.h"
#include "kernels/gather.h"
#include "kernels/noise.h"

namespace vae::gpu {

// Of a window, unless a step needs more.
inline constexpr std::size_t kWindowBytes = std::size_t{64} << 20;

class StreamedData {
  public:
    // Keeps the values of the splits, and two windows of up to window_rows examples on the device
    // and in page-locked memory. `reader` outlives this: the stream that work which reads the ring
    // is given to. Throws RunError when the device is full.
    StreamedData(const Splits& splits, std::size_t window_rows, const Stream& reader);

    std::size_t window_rows() const { return window_rows_; }
    std::uint32_t ring_rows() const { return static_cast<std::uint32_t>(2 * window_rows_); }
    // Where in the ring the next window begins.
    std::uint32_t next_slot() const { return next_slot_; }

    // Brings examples of a split, up to window_rows(), to the ring: gathers them, copies them on a
    // stream of its own, and what the reader is given from now on finds them there. All work on the
    // window before must have been given to the reader. Waits for the copy of the last window but
    // one alone, which may wait for the work on the window before it.
    void load(Split split, std::span<const std::uint32_t> rows);

    // Whether a split is so large a file that it pays to say which examples come after those that
    // are loaded; and they are these.
    bool wants_notice(Split split) const { return is_large_file(splits_.of(split)); }
    void notice(Split split, std::span<const std::uint32_t> rows) const {
        expect_reads(splits_.of(split), rows);
    }

    // On the device, [window_rows]: the ring's rows of the window that was loaded last; and a place
    // for those of steps, which find them there.
    const std::uint32_t* slots() const { return slots_.data() + slot_; }
    std::uint32_t* step_slots() { return step_slots_.data(); }

    // x[r] = the ring's row slots[r] of a window of `split`, for r < rows: example number[r] of it.
    // Binary pixels are drawn at first_index + number[r]. Both are on the device.
    void gather(Split split, const std::uint32_t* slots, const std::uint32_t* number,
                std::uint32_t first_index, int rows, kernels::Pixels pixels,
                const kernels::NoiseStream& noise, const GatheredBatch& to,
                const Stream& stream) const;

  private:
    // Page-locked memory of a window.
    struct Staging {
        explicit Staging(std::size_t bytes) : memory(bytes) {}

        PinnedArray<std::byte> memory;
        Event copied;  // to the ring
        Event given;   // to the reader: work on all earlier windows
    };

    // `rows` of a window's first rows in `from` to rows of the ring from `slot` on.
    void copy(const std::byte* from, std::size_t rows, std::size_t slot, std::size_t row_bytes);

    const Splits splits_;
    const std::size_t window_rows_;
    const Stream& reader_;
    Stream copying_;
    DeviceArray<std::byte> ring_;
    DeviceArray<std::uint32_t> slots_;       // i mod ring_rows, for i < 3 · window_rows
    DeviceArray<std::uint32_t> step_slots_;  // [window_rows]
    std::array<Staging, 2> staging_;         // of windows in turn
    std::size_t windows_ = 0;                // so far
    std::size_t row_bytes_ = 0;              // of the last window
    std::uint32_t slot_ = 0;                 // of the last window
    std::uint32_t next_slot_ = 0;
};

}  // namespace vae::gpu
