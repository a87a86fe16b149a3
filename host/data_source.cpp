#include "host/data_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/examples.h"
#include "host/files.h"
#include "host/idx.h"
#include "host/image_folder.h"
#include "host/mapped_file.h"
#include "host/npy.h"
#include "host/output_layer.h"
#include "host/shape.h"
#include "host/synthetic.h"

namespace vae {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFashionMnistFolder = "/usr/share/datasets/fashion-mnist";
constexpr const char* kFolderVariable = "VAE_DATA";

// The last tenth of a source without a test set of its own is the test split.
constexpr std::size_t kTestShare = 10;

// What a SPEC names, as it lies there.
struct Source {
    Dataset train;                // all examples where there is no test set
    std::optional<Dataset> test;  // the source's own
};

// Throws InputError when the system does not say, as in a folder that may not be entered.
bool is_there(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) return false;
    if (!error) return true;
    throw InputError(fmt::format("cannot read {}: {}", path.string(), error.message()));
}

// Where a file of MNIST's may be, the first one first, by the part of its name that tells it:
// "train-images" or "t10k-images".
std::vector<fs::path> image_candidates(const fs::path& folder, const std::string& stem) {
    std::vector<fs::path> paths;
    for (const char* const ending :
         {"-idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte", ".idx3-ubyte.gz"}) {
        paths.push_back(folder / (stem + ending));
    }
    return paths;
}

std::optional<fs::path> find_images(const fs::path& folder, const std::string& stem) {
    for (const fs::path& path : image_candidates(folder, stem)) {
        if (is_there(path)) return path;
    }
    return std::nullopt;
}

// A file as it lies there; what is packed, or cannot be mapped, in memory.
ByteValues bytes_of(const fs::path& path) {
    if (const auto file = map_file(path); file && !is_gzip(file->bytes())) {
        return {file, file->bytes()};
    }
    return read_maybe_gzip(path);
}

Dataset load_idx(const fs::path& path) {
    return parse_idx(bytes_of(path), path.string());
}

constexpr const char* kTrainImages = "train-images";
constexpr const char* kTestImages = "t10k-images";

Source load_mnist(const fs::path& folder) {
    const auto train = find_images(folder, kTrainImages);
    const auto test = find_images(folder, kTestImages);
    if (!train || !test) {
        throw InputError(fmt::format("{}: no {}-idx3-ubyte there (plain or .gz)", folder.string(),
                                     train ? kTestImages : kTrainImages));
    }
    Source source{load_idx(*train), load_idx(*test)};
    if (source.train.shape != source.test->shape) {
        throw InputError(fmt::format("{}: its images are {}, and those of {} are {}",
                                     test->string(), to_text(source.test->shape),
                                     train->filename().string(), to_text(source.train.shape)));
    }
    return source;
}

// Empty if $VAE_DATA is not set.
std::string folder_variable() {
    const char* const variable = std::getenv(kFolderVariable);
    return variable == nullptr ? "" : variable;
}

std::optional<fs::path> fashion_mnist_folder() {
    const fs::path folder = folder_variable();
    if (folder.empty()) {
        if (is_there(kFashionMnistFolder)) return kFashionMnistFolder;
        return std::nullopt;
    }
    for (const fs::path& candidate : {folder, folder / "fashion-mnist"}) {
        if (find_images(candidate, kTrainImages)) return candidate;
    }
    return std::nullopt;
}

Source load_fashion_mnist() {
    if (const auto folder = fashion_mnist_folder()) return load_mnist(*folder);
    const std::string variable = folder_variable();
    if (variable.empty()) {
        throw InputError(
            fmt::format("Fashion-MNIST is not installed: apt-get install "
                        "dataset-fashion-mnist, or set {} to a folder that has its "
                        "files",
                        kFolderVariable));
    }
    throw InputError(
        fmt::format("{} is {}, and Fashion-MNIST's train-images-idx3-ubyte is neither "
                    "there nor in its subfolder fashion-mnist: set it to the right "
                    "folder, or unset it and apt-get install dataset-fashion-mnist",
                    kFolderVariable, variable));
}

Dataset load_file(const fs::path& path) {
    const ByteValues file = bytes_of(path);
    if (file.size() == 0) throw InputError(fmt::format("{}: the file is empty", path.string()));
    if (is_idx(file)) return parse_idx(file, path.string());
    if (file[0] == 0x93) {  // the first byte of .npy, and of no text
        NpyView array = view_npy(file, path.string());
        return make_dataset(array.shape, std::move(array.values), path.string());
    }
    throw InputError(
        fmt::format("{}: it is neither an IDX nor an .npy file (images go into a "
                    "folder of their own)",
                    path.string()));
}

// What follows the prefix, if the SPEC has it.
std::optional<std::string> after(const std::string& spec, std::string_view prefix) {
    if (!spec.starts_with(prefix)) return std::nullopt;
    return spec.substr(prefix.size());
}

Source load_source(const std::string& spec) {
    if (spec == "fashion-mnist") return load_fashion_mnist();
    if (const auto folder = after(spec, "mnist:")) {
        if (folder->empty()) throw InputError("mnist: names no folder; write mnist:DIR");
        return load_mnist(*folder);
    }
    if (const auto name = after(spec, "synthetic:")) {
        SyntheticSet set = synthetic_set(*name);
        return {std::move(set.train), std::move(set.test)};
    }
    if (!is_there(spec)) {
        throw InputError(
            fmt::format("no data '{}': it is no file or folder, and none of "
                        "fashion-mnist, mnist:DIR, synthetic:NAME",
                        spec));
    }
    std::error_code ignored;
    if (fs::is_directory(spec, ignored)) return {load_image_folder(spec), std::nullopt};
    return {load_file(spec), std::nullopt};
}

// The path made absolute and plain; as it is when the system cannot follow it.
std::string absolute_path(const std::string& path) {
    std::error_code error;
    const fs::path absolute = fs::weakly_canonical(fs::absolute(path, error), error);
    return error || !fs::exists(absolute, error) ? path : absolute.string();
}

Dataset split_off_test(Dataset& all) {
    const std::size_t test = all.size < 2 ? 0 : std::max<std::size_t>(all.size / kTestShare, 1);
    Dataset part = part_of_examples(all, all.size - test, all.size);
    keep_first(all, all.size - test);
    return part;
}

}  // namespace

void take_values(Dataset& data, const ModelConfig& model, Binarize binarize,
                 const std::string& source) {
    data.bytes_are_counts = takes_bytes_as_counts(model.likelihood);
    check_support(data, model, binarize, source);
}

Splits load_splits(const DataConfig& data, const ModelConfig& model) {
    Source source = load_source(data.source);
    take_values(source.train, model, data.binarize, data.source);
    if (source.test) {
        take_values(*source.test, model, data.binarize, data.source + " (test set)");
    }

    Splits splits;
    splits.test = source.test ? std::move(*source.test) : split_off_test(source.train);
    splits.train = std::move(source.train);
    const std::size_t available = splits.train.size;
    if (data.validation >= available) {
        throw InputError(
            fmt::format("data.validation = {} leaves no training examples: {} has {} "
                        "besides the test split",
                        data.validation, data.source, available));
    }
    splits.validation = part_of_examples(splits.train, available - data.validation, available);
    keep_first(splits.train, available - data.validation);
    if (available + splits.test.size > std::numeric_limits<std::uint32_t>::max()) {
        throw InputError(fmt::format("{}: more examples than can be counted in 32 bits: {}",
                                     data.source, available + splits.test.size));
    }
    splits.test.first_index = static_cast<std::uint32_t>(available);
    return splits;
}

Dataset load_examples(const std::string& spec) {
    Source source = load_source(spec);
    if (!source.test) return std::move(source.train);
    source.test->first_index = static_cast<std::uint32_t>(source.train.size);
    return std::move(*source.test);
}

bool is_one_set(const std::string& spec) {
    return spec != "fashion-mnist" && !after(spec, "mnist:") && !after(spec, "synthetic:");
}

std::optional<fs::path> path_of_source(const std::string& spec) {
    if (const auto folder = after(spec, "mnist:")) return *folder;
    if (is_one_set(spec)) return spec;
    return std::nullopt;
}

std::vector<fs::path> paths_read(const std::string& spec) {
    if (spec.empty()) return {};
    const auto path = spec == "fashion-mnist" ? fashion_mnist_folder() : path_of_source(spec);
    if (!path) return {};
    std::error_code error;
    if (is_one_set(spec)) {
        if (!fs::is_directory(*path, error)) return {*path};
        std::vector<fs::path> all = pictures_in(*path);
        all.push_back(*path);
        return all;
    }
    std::vector<fs::path> files;
    for (const char* const stem : {kTrainImages, kTestImages}) {
        for (const fs::path& candidate : image_candidates(*path, stem)) {
            files.push_back(candidate);
            if (is_there(candidate)) break;
        }
    }
    return files;
}

std::string absolute_source(const std::string& spec) {
    if (const auto folder = after(spec, "mnist:")) return "mnist:" + absolute_path(*folder);
    return is_one_set(spec) ? absolute_path(spec) : spec;
}

}  // namespace vae
