#include "host/image_folder.h"

#include <gtest/gtest.h>
#include <stb_image_write.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "host/error.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

void append(void* context, void* data, int size) {
    static_cast<std::string*>(context)->append(static_cast<const char*>(data),
                                               static_cast<std::size_t>(size));
}

std::string png(int height, int width, int channels, const std::vector<std::uint8_t>& pixels) {
    std::string file;
    stbi_write_png_to_func(append, &file, width, height, channels, pixels.data(), width * channels);
    return file;
}

std::string jpeg(int height, int width, int channels, const std::vector<std::uint8_t>& pixels) {
    std::string file;
    stbi_write_jpg_to_func(append, &file, width, height, channels, pixels.data(), 100);
    return file;
}

std::string refusal(const fs::path& folder) {
    return message_of<InputError>([&] { load_image_folder(folder); });
}

using Bytes = std::vector<std::uint8_t>;

TEST(ImageFolder, ReadsGreyImagesInTheOrderOfTheirNames) {
    const TemporaryFolder folder;
    put_file(folder / "b.PNG", png(1, 2, 1, {3, 4}));
    put_file(folder / "a.png", png(1, 2, 1, {1, 2}));
    put_file(folder / "c.png", png(1, 2, 2, {5, 200, 6, 100}));  // with alpha
    put_file(folder / "d.jpg", jpeg(1, 2, 1, {7, 7}));
    put_file(folder / "notes.txt", "no picture");
    fs::create_directory(folder / "more");
    const Dataset data = load_image_folder(folder.path());
    EXPECT_EQ(data.size, 4u);
    EXPECT_EQ(data.shape, (ImageShape{1, 2, 1}));
    const auto& bytes = std::get<ByteValues>(data.values);
    ASSERT_EQ(bytes.size(), 8u);
    EXPECT_EQ(Bytes(bytes.begin(), bytes.begin() + 6), (Bytes{1, 2, 3, 4, 5, 6}));
    EXPECT_NEAR(bytes[6], 7, 2);  // JPEG loses a little
}

TEST(ImageFolder, TheFirstImageDecidesTheChannels) {
    const TemporaryFolder folder;
    put_file(folder / "a.png", png(1, 1, 4, {1, 2, 3, 200}));
    put_file(folder / "b.png", png(1, 1, 1, {9}));
    const Dataset data = load_image_folder(folder.path());
    EXPECT_EQ(data.shape, (ImageShape{1, 1, 3}));
    EXPECT_EQ(std::get<ByteValues>(data.values), (Bytes{1, 2, 3, 9, 9, 9}));
}

TEST(ImageFolder, RefusesWhatIsNoDataSet) {
    const TemporaryFolder folder;
    EXPECT_TRUE(contains(refusal(folder.path()), "no .png, .jpg or .jpeg file"));
    EXPECT_TRUE(contains(refusal(folder / "missing"), "No such file or directory"));
    put_file(folder / "a.png", png(1, 2, 1, {1, 2}));
    put_file(folder / "b.png", png(2, 1, 1, {1, 2}));
    put_file(folder / "c.png", png(3, 1, 1, {1, 2, 3}));
    const std::string message = refusal(folder.path());
    EXPECT_TRUE(contains(message, (folder / "b.png").string() + ": it is 2 x 1")) << message;
    EXPECT_TRUE(contains(message, "a.png is 1 x 2")) << message;
    put_file(folder / "a.png", "not a picture");
    EXPECT_TRUE(contains(refusal(folder.path()), "a.png: it is not a whole PNG or JPEG"));
}

TEST(ImageFolder, AJpegTableOfTooManySymbolsIsRefused) {
    const TemporaryFolder folder;
    const std::string whole = jpeg(16, 16, 3, Bytes(16 * 16 * 3, 100));
    const std::size_t table = whole.find("\xff\xc4");
    ASSERT_NE(table, std::string::npos);
    put_file(folder / "a.jpg", whole);
    EXPECT_EQ(refusal(folder.path()), "");
    std::string damaged = whole;
    // After marker, length and class: 16 counts. Codes of 16 bits, more than the decoder has room.
    damaged[table + 5 + 14] = '\xff';
    damaged[table + 5 + 15] = '\xff';
    put_file(folder / "a.jpg", damaged);
    const std::string message = refusal(folder.path());
    EXPECT_TRUE(contains(message, "damaged Huffman tables")) << message;
    put_file(folder / "a.jpg", whole.substr(0, table + 10));
    EXPECT_TRUE(contains(refusal(folder.path()), "damaged Huffman tables"));
}

TEST(ImageFolder, ADamagedPngIsRefused) {
    const TemporaryFolder folder;
    const std::string whole = png(3, 3, 1, {1, 2, 3, 4, 5, 6, 7, 8, 9});
    const auto refusal_of = [&folder](const std::string& file) {
        put_file(folder / "a.png", file);
        return refusal(folder.path());
    };
    EXPECT_EQ(refusal_of(whole), "");
    // Every byte after the signature is in a chunk's length, type, data or checksum.
    for (std::size_t at = 8; at < whole.size(); ++at) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        EXPECT_TRUE(contains(refusal_of(damaged), "a.png: it is not a whole PNG or JPEG")) << at;
    }
    std::string checksum = whole;
    checksum[whole.size() - 13] ^= 1;  // the last byte of IDAT's; IEND has 12
    EXPECT_TRUE(contains(refusal_of(checksum), "a checksum is wrong"));
    for (std::size_t size = 8; size < whole.size(); ++size) {
        const std::string message = refusal_of(whole.substr(0, size));
        EXPECT_TRUE(contains(message, "the file ends too early")) << size << message;
    }
}

// The decoder is third-party code; this holds it to no crash on the formats that are let through.
TEST(ImageFolder, DamagedImagesNeverCrash) {
    std::mt19937 random(11);
    Bytes pixels(16 * 16 * 3);
    for (auto& pixel : pixels) pixel = static_cast<std::uint8_t>(random());
    for (const std::string& whole : {png(16, 16, 3, pixels), jpeg(16, 16, 3, pixels)}) {
        const TemporaryFolder folder;
        const fs::path path = folder / "a.png";
        std::size_t refused = 0;
        for (std::size_t turn = 0; turn < 200; ++turn) {
            std::string damaged = whole;
            if (turn % 2 == 0) damaged.resize(random() % damaged.size());
            if (!damaged.empty()) damaged[random() % damaged.size()] = static_cast<char>(random());
            put_file(path, damaged);
            if (!refusal(folder.path()).empty()) ++refused;
        }
        EXPECT_GT(refused, 20u);
    }
}

}  // namespace
}  // namespace vae
