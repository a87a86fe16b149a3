// Images in memory, or in a file that is mapped. Bytes stay bytes until a backend needs them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "host/config.h"
#include "host/values.h"

namespace vae {

// How one example is laid out: pixels() = height·width·channels values, row-major, channels last.
// A vector that is no image has height 1 and channels 1.
struct ImageShape {
    std::size_t height = 1;
    std::size_t width = 0;
    std::size_t channels = 1;

    std::size_t pixels() const { return height * width * channels; }
    bool operator==(const ImageShape&) const = default;
};

// A copy shares the values.
struct Dataset {
    ImageShape shape;
    std::size_t size = 0;  // examples
    // size·pixels values. A byte b stands for b/255, or for b where bytes are counts.
    std::variant<ByteValues, FloatValues> values;
    bool bytes_are_counts = false;
    // The global index of example 0, for the address of its noise: training, validation and test
    // examples are counted through in this order.
    std::uint32_t first_index = 0;
};

enum class Split { train, validation, test };

// "train", "validation", "test".
const char* name_of(Split split);

struct Splits {
    Dataset train;
    Dataset validation;  // empty unless examples are held out
    Dataset test;        // empty when the source has none

    const Dataset& of(Split split) const;
    // validation where there is one, else test, else train: what a training run reports on.
    Split held_out() const;
};

}  // namespace vae
