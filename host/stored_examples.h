// Examples as the bytes that they are stored as, in memory or in a file that memory may not hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "host/dataset.h"

namespace vae {

// All of them, one after the other.
std::span<const std::byte> stored_bytes(const Dataset& data);

// Bytes of an example; of splits, of the largest kind.
std::size_t row_bytes(const Dataset& data);
std::size_t row_bytes(const Splits& splits);

// Whether they are a mapped file that the machine's memory cannot be expected to keep: of more than
// half of it.
bool is_large_file(const Dataset& data);

// Of a large file alone: examples will be read in no order, so that reading ahead of one would only
// throw others out; and these are read next.
void expect_scattered_reads(const Dataset& data);
void expect_reads(const Dataset& data, std::span<const std::uint32_t> rows);

}  // namespace vae
