#include "host/image.h"

#include <gtest/gtest.h>
#include <stb_image.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/error.h"
#include "host/files.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;
using testing::TemporaryFolder;

constexpr int kLineGrey = 96;

struct Png {
    int width = 0;
    int height = 0;
    int channels = 0;
    std::vector<std::uint8_t> bytes;

    int at(int y, int x, int c = 0) const {
        return bytes.at(static_cast<std::size_t>((y * width + x) * channels + c));
    }
};

Png read_png(const std::filesystem::path& path) {
    const std::string file = read_file(path);
    Png png;
    stbi_uc* pixels = stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(file.data()),
                                            static_cast<int>(file.size()), &png.width, &png.height,
                                            &png.channels, 0);
    if (pixels == nullptr) throw std::runtime_error("not a PNG");
    png.bytes.assign(pixels, pixels + png.width * png.height * png.channels);
    stbi_image_free(pixels);
    return png;
}

TEST(PngGrid, PlacesEnlargesAndFramesImages) {
    const TemporaryFolder folder;
    // Three images of 1 x 2 pixels in two columns: each pixel becomes 3 x 3.
    const std::vector<float> images = {0.0f, 1.0f, 0.2f, 0.4f, 0.6f, 0.8f};
    write_png_grid(folder / "a.png", images, {1, 2, 1}, 2);
    const Png png = read_png(folder / "a.png");
    ASSERT_EQ(png.channels, 1);
    ASSERT_EQ(png.width, 2 + 6 + 2 + 6 + 2);
    ASSERT_EQ(png.height, 2 + 3 + 2 + 3 + 2);
    const int bytes[6] = {0, 255, 51, 102, 153, 204};
    for (int y = 0; y < png.height; ++y) {
        for (int x = 0; x < png.width; ++x) {
            const int row = (y - 2) / 5;
            const int column = (x - 2) / 8;
            const bool line = y < 2 || x < 2 || (y - 2) % 5 >= 3 || (x - 2) % 8 >= 6;
            const bool missing = row == 1 && column == 1;
            const int expected =
                line || missing ? kLineGrey : bytes[(row * 2 + column) * 2 + (x - 2) % 8 / 3];
            ASSERT_EQ(png.at(y, x), expected) << y << " " << x;
        }
    }
}

TEST(PngGrid, ScalesBySize) {
    const TemporaryFolder folder;
    const std::size_t sides[4] = {31, 32, 63, 64};
    const std::size_t widths[4] = {31 * 3, 32 * 2, 63 * 2, 64};
    for (int i = 0; i < 4; ++i) {
        const std::vector<float> images(sides[i] * sides[i], 0.5f);
        write_png_grid(folder / "a.png", images, {sides[i], sides[i], 1}, 8);
        EXPECT_EQ(read_png(folder / "a.png").width, static_cast<int>(widths[i]) + 4);
    }
}

TEST(PngGrid, ClampsAndRounds) {
    const TemporaryFolder folder;
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> image = {-1.0f,
                                      2.0f,
                                      infinity,
                                      -infinity,
                                      std::numeric_limits<float>::quiet_NaN(),
                                      0.5f,
                                      127.4f / 255.0f,
                                      127.6f / 255.0f};
    write_png_grid(folder / "a.png", image, {1, 8, 1}, 1);
    const Png png = read_png(folder / "a.png");
    const int expected[8] = {0, 255, 255, 0, 0, 128, 127, 128};
    for (int i = 0; i < 8; ++i) EXPECT_EQ(png.at(2, 2 + 3 * i), expected[i]) << i;
}

TEST(PngGrid, KeepsColours) {
    const TemporaryFolder folder;
    const std::vector<float> image = {1.0f, 0.0f, 0.2f, 0.0f, 0.4f, 1.0f};
    write_png_grid(folder / "a.png", image, {1, 2, 3}, 1);
    const Png png = read_png(folder / "a.png");
    ASSERT_EQ(png.channels, 3);
    const int expected[6] = {255, 0, 51, 0, 102, 255};
    for (int i = 0; i < 6; ++i) EXPECT_EQ(png.at(2, 2 + i / 3 * 3, i % 3), expected[i]) << i;
}

TEST(PngGrid, RefusesWhatMakesNoPicture) {
    const TemporaryFolder folder;
    const std::vector<float> values(8, 0.5f);
    const auto path = folder / "a.png";
    EXPECT_TRUE(contains(message_of<InputError>([&] {
                             write_png_grid(path, values, {2, 2, 2}, 1);
                         }),
                         "write .npy instead"));
    EXPECT_THROW(write_png_grid(path, values, {1, 3, 1}, 1), std::invalid_argument);
    EXPECT_THROW(write_png_grid(path, values, {1, 8, 1}, 0), std::invalid_argument);
    EXPECT_THROW(write_png_grid(path, {}, {1, 8, 1}, 1), std::invalid_argument);
    // Each image of one pixel takes 5 x 5 with its frame. The values are never looked at.
    constexpr std::size_t kMany = std::size_t{1} << 26;
    const auto many = std::make_unique_for_overwrite<float[]>(kMany);
    EXPECT_TRUE(contains(message_of<InputError>([&] {
                             write_png_grid(path, std::span(many.get(), kMany), {1, 1, 1}, 8192);
                         }),
                         "too large"));
    EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace vae
