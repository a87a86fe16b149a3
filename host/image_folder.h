// A folder of pictures as a data set.
#pragma once

#include <filesystem>
#include <vector>

#include "host/dataset.h"

namespace vae {

// Whether a file of that name is one of its folder's pictures: .png, .jpg or .jpeg in any case.
bool is_picture(const std::filesystem::path& path);

// Those directly in the folder, in the order of their names. InputError when there is none or the
// folder cannot be read.
std::vector<std::filesystem::path> pictures_in(const std::filesystem::path& folder);

// The folder's pictures as bytes. The first one decides: grey (1 channel) or RGB (3), and the size.
// Others are converted to its channels; alpha is dropped and 16 bits become 8. InputError when
// there is none, one cannot be read, or one differs in size (the first that does is named).
Dataset load_image_folder(const std::filesystem::path& folder);

}  // namespace vae
