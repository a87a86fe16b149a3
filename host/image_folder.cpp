#include "host/image_folder.h"

#include <fmt/format.h>
#include <stb_image.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/examples.h"
#include "host/files.h"
#include "host/jpeg_check.h"
#include "host/png_check.h"

namespace vae {

namespace fs = std::filesystem;

bool is_picture(const fs::path& path) {
    std::string extension = path.extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

namespace {

struct StbFree {
    void operator()(stbi_uc* pixels) const { stbi_image_free(pixels); }
};

// stb_image has not always a reason.
[[noreturn]] void cannot_decode(const fs::path& path, const char* reason) {
    throw InputError(fmt::format("{}: it is not a whole PNG or JPEG image ({})", path.string(),
                                 reason == nullptr ? "damaged" : reason));
}

// An encoded picture and what its header says.
struct Picture {
    fs::path path;
    std::string file;
    ImageShape shape;
};

Picture open_picture(const fs::path& path) {
    Picture picture{path, read_file(path), {}};
    if (picture.file.size() > INT_MAX) {
        throw InputError(fmt::format("{}: it is too large for an image", path.string()));
    }
    const std::span<const std::uint8_t> bytes(
        reinterpret_cast<const std::uint8_t*>(picture.file.data()), picture.file.size());
    if (!bytes.empty() && bytes[0] == 0xff && !jpeg_tables_fit(bytes)) {  // only JPEG starts so
        cannot_decode(path, "damaged Huffman tables");
    }
    if (is_png(bytes)) {
        if (const char* const damage = png_damage(bytes)) cannot_decode(path, damage);
    }
    int width = 0;
    int height = 0;
    int channels = 0;
    if (stbi_info_from_memory(reinterpret_cast<const stbi_uc*>(picture.file.data()),
                              static_cast<int>(picture.file.size()), &width, &height,
                              &channels) == 0) {
        cannot_decode(path, stbi_failure_reason());
    }
    picture.shape = {static_cast<std::size_t>(height), static_cast<std::size_t>(width),
                     channels >= 3 ? std::size_t{3} : std::size_t{1}};
    return picture;
}

void append_pixels(const Picture& picture, const ImageShape& shape,
                   std::vector<std::uint8_t>& values) {
    int width = 0;
    int height = 0;
    int channels = 0;
    const std::unique_ptr<stbi_uc, StbFree> pixels(
        stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(picture.file.data()),
                              static_cast<int>(picture.file.size()), &width, &height, &channels,
                              static_cast<int>(shape.channels)));
    if (!pixels) cannot_decode(picture.path, stbi_failure_reason());
    values.insert(values.end(), pixels.get(), pixels.get() + shape.pixels());
}

}  // namespace

std::vector<fs::path> pictures_in(const fs::path& folder) {
    std::vector<fs::path> paths;
    std::error_code error;
    fs::directory_iterator entries(folder, error);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
        if (is_picture(entries->path())) paths.push_back(entries->path());
    }
    if (error) {
        throw InputError(
            fmt::format("cannot read folder {}: {}", folder.string(), error.message()));
    }
    if (paths.empty()) {
        throw InputError(
            fmt::format("{}: the folder has no .png, .jpg or .jpeg file (for a folder "
                        "of MNIST's files write mnist:{})",
                        folder.string(), folder.string()));
    }
    std::sort(paths.begin(), paths.end());
    return paths;
}

Dataset load_image_folder(const fs::path& folder) {
    const std::vector<fs::path> paths = pictures_in(folder);
    ImageShape shape;
    std::vector<std::uint8_t> values;
    for (const fs::path& path : paths) {
        const Picture picture = open_picture(path);
        if (values.empty()) shape = picture.shape;
        if (picture.shape.height != shape.height || picture.shape.width != shape.width) {
            throw InputError(
                fmt::format("{}: it is {} x {} pixels (height x width), and {} is {} "
                            "x {}: make all images of one size",
                            path.string(), picture.shape.height, picture.shape.width,
                            paths.front().filename().string(), shape.height, shape.width));
        }
        append_pixels(picture, shape, values);
    }
    const std::array<std::size_t, 4> extents = {paths.size(), shape.height, shape.width,
                                                shape.channels};
    return make_dataset(extents, std::move(values), folder.string());
}

}  // namespace vae
