#include "host/image.h"

#include <fmt/format.h>
#include <stb_image_write.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/error.h"
#include "host/files.h"

namespace vae {
namespace {

constexpr std::size_t kLine = 2;
constexpr std::uint8_t kLineGrey = 96;

std::uint8_t to_byte(float value) {
    if (!(value > 0)) return 0;  // NaN as well
    return static_cast<std::uint8_t>(std::lround(std::min(value, 1.0f) * 255.0f));
}

std::size_t enlargement(const ImageShape& shape) {
    const std::size_t side = std::max(shape.height, shape.width);
    return side < 32 ? 3 : side < 64 ? 2 : 1;
}

struct Canvas {
    std::size_t height = 0;
    std::size_t width = 0;
    std::size_t channels = 0;
    std::vector<std::uint8_t> bytes;
};

// The upper left corner of the enlarged image at (top, left) of the canvas.
void draw(std::span<const float> image, const ImageShape& shape, std::size_t top, std::size_t left,
          Canvas& canvas) {
    const std::size_t scale = enlargement(shape);
    const std::size_t channels = shape.channels;
    for (std::size_t y = 0; y < shape.height * scale; ++y) {
        const float* source = image.data() + y / scale * shape.width * channels;
        std::uint8_t* target =
            canvas.bytes.data() + ((top + y) * canvas.width + left) * canvas.channels;
        for (std::size_t x = 0; x < shape.width * scale; ++x) {
            for (std::size_t c = 0; c < channels; ++c) {
                *target++ = to_byte(source[x / scale * channels + c]);
            }
        }
    }
}

void check_size(const ImageShape& shape, std::size_t rows, std::size_t columns) {
    // stb counts bytes in int; half of its range leaves room for its own bookkeeping.
    constexpr double kMaxBytes = 1 << 30;
    const auto scale = enlargement(shape);
    const double height =
        static_cast<double>(rows) * static_cast<double>(shape.height * scale + kLine);
    const double width =
        static_cast<double>(columns) * static_cast<double>(shape.width * scale + kLine);
    if ((height + kLine) * (width + kLine) * static_cast<double>(shape.channels) > kMaxBytes) {
        throw InputError(
            fmt::format("a picture of {} x {} images of {} x {} pixels is too large for PNG: ask "
                        "for fewer images, or write .npy",
                        rows, columns, shape.height, shape.width));
    }
}

Canvas empty_canvas(const ImageShape& shape, std::size_t rows, std::size_t columns) {
    const std::size_t scale = enlargement(shape);
    Canvas canvas;
    canvas.height = rows * (shape.height * scale + kLine) + kLine;
    canvas.width = columns * (shape.width * scale + kLine) + kLine;
    canvas.channels = shape.channels;
    canvas.bytes.assign(canvas.height * canvas.width * canvas.channels, kLineGrey);
    return canvas;
}

std::string encode_png(const Canvas& canvas) {
    std::string file;
    const auto append = [](void* context, void* data, int size) {
        static_cast<std::string*>(context)->append(static_cast<const char*>(data),
                                                   static_cast<std::size_t>(size));
    };
    const int ok = stbi_write_png_to_func(append, &file, static_cast<int>(canvas.width),
                                          static_cast<int>(canvas.height),
                                          static_cast<int>(canvas.channels), canvas.bytes.data(),
                                          static_cast<int>(canvas.width * canvas.channels));
    if (ok == 0 || file.empty()) throw RunError("making a PNG failed: out of memory");
    return file;
}

}  // namespace

void check_png_grid(const ImageShape& shape, std::size_t count, std::size_t columns) {
    if (shape.channels != 1 && shape.channels != 3) {
        throw InputError(fmt::format(
            "images of {} channels make no PNG (1 or 3 do): write .npy instead", shape.channels));
    }
    if (count == 0 || columns == 0) {
        throw std::invalid_argument("check_png_grid: no image or no column");
    }
    columns = std::min(columns, count);
    check_size(shape, (count + columns - 1) / columns, columns);
}

void write_png_grid(const std::filesystem::path& path, std::span<const float> images,
                    const ImageShape& shape, std::size_t columns) {
    const std::size_t pixels = shape.pixels();
    if (images.empty() || columns == 0 || pixels == 0 || images.size() % pixels != 0) {
        throw std::invalid_argument("write_png_grid: no image, no column, or part of an image");
    }
    const std::size_t count = images.size() / pixels;
    check_png_grid(shape, count, columns);
    columns = std::min(columns, count);
    Canvas canvas = empty_canvas(shape, (count + columns - 1) / columns, columns);
    const std::size_t scale = enlargement(shape);
    for (std::size_t i = 0; i < count; ++i) {
        draw(images.subspan(i * pixels, pixels), shape,
             kLine + i / columns * (shape.height * scale + kLine),
             kLine + i % columns * (shape.width * scale + kLine), canvas);
    }
    write_file_atomically(path, encode_png(canvas));
}

}  // namespace vae
