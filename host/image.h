// Pictures for people: a grid of images as a PNG.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "host/dataset.h"

namespace vae {

// Throws InputError when write_png_grid would refuse `count` images of that shape in so many
// columns.
void check_png_grid(const ImageShape& shape, std::size_t count, std::size_t columns);

// Writes images[n · shape.pixels()], values clamped to [0,1] (NaN is black), as rows of `columns`
// images, separated and framed by grey lines of 2 pixels. Images below 64 pixels (the larger side)
// are enlarged twice, below 32 three times, by repeating pixels. The file appears whole or not at
// all (RunError). InputError when the shape has other than 1 or 3 channels or the picture would be
// too large; std::invalid_argument when there is no image, no column, or part of an image.
void write_png_grid(const std::filesystem::path& path, std::span<const float> images,
                    const ImageShape& shape, std::size_t columns);

}  // namespace vae
