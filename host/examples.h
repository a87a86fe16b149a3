// From an array of any source to a Dataset.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <variant>

#include "host/dataset.h"

namespace vae {

// Takes values[N, …] of shape (N,D), (N,H,W) or (N,H,W,C). `name` is what errors call the source.
// InputError on another rank, on no examples, on examples of no pixels, and when an index of an
// example would not fit 32 bits. std::invalid_argument when the values do not fit the shape.
Dataset make_dataset(std::span<const std::size_t> shape,
                     std::variant<ByteValues, FloatValues> values, const std::string& name);

// Examples [begin, end) as a data set of their own, of the same memory; first_index counts on.
Dataset part_of_examples(const Dataset& data, std::size_t begin, std::size_t end);

// Keeps examples [0, size).
void keep_first(Dataset& data, std::size_t size);

}  // namespace vae
