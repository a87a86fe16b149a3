#include "host/loaded_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/image.h"
#include "host/image_folder.h"
#include "host/npy.h"
#include "host/pictures.h"
#include "host/run_folder.h"

namespace vae {

namespace {

// Examples at a time that keep a GPU busy.
constexpr std::uint32_t kReadBatch = 1024;

void check_fits(const RunData& data, const Checkpoint& checkpoint) {
    const ImageShape& shape = data.examples().shape;
    if (shape.pixels() == checkpoint.shape.pixels()) return;
    throw InputError(fmt::format("{}: examples are {}, but the run was trained on {}", data.source,
                                 to_text(shape), to_text(checkpoint.shape)));
}

// Whether the SPEC names a path where there is nothing.
bool has_moved(const std::string& spec) {
    const auto path = path_of_source(spec);
    if (!path) return false;
    std::error_code error;
    return std::filesystem::status(*path, error).type() == std::filesystem::file_type::not_found;
}

Split chosen_split(const std::string& name, const Splits& splits, const std::string& source) {
    if (name.empty()) return splits.held_out();
    for (const Split split : {Split::train, Split::validation, Split::test}) {
        if (name != name_of(split)) continue;
        if (splits.of(split).size == 0) {
            throw InputError(fmt::format("--split {}: {} has no such examples", name, source));
        }
        return split;
    }
    throw InputError(
        fmt::format("--split {}: there is no such split; use train, validation or test", name));
}

}  // namespace

std::string parameters_note(const TrainConfig& train) {
    if (train.ema == 0) return {};
    return fmt::format("the moving average of the parameters (train.ema = {})", train.ema);
}

LoadedRun load_run(const std::filesystem::path& run, const std::string& backend) {
    LoadedRun loaded;
    loaded.checkpoint = load_checkpoint(find_checkpoint(run));
    Config config = config_for(backend, loaded.checkpoint.config);
    // However large a training step was: reading takes room for no more than pays.
    config.train.batch = std::min(config.train.batch, kReadBatch);
    ChosenBackend chosen = choose_backend(backend, config, loaded.checkpoint.layout());
    loaded.backend = std::move(chosen.backend);
    loaded.note = std::move(chosen.note);
    loaded.backend->set_state(loaded.checkpoint.state);
    return loaded;
}

RunData load_run_examples(const Checkpoint& checkpoint, const std::string& data) {
    const Config& config = checkpoint.config;
    RunData loaded;
    loaded.source = data;
    loaded.splits.test = load_examples(data);
    loaded.is_all = is_one_set(data);
    check_fits(loaded, checkpoint);
    take_values(loaded.splits.test, config.model, config.data.binarize, data);
    loaded.splits.train.shape = loaded.splits.validation.shape = loaded.splits.test.shape;
    return loaded;
}

Splits load_run_splits(const DataConfig& data, const Checkpoint& checkpoint) {
    if (data.source == checkpoint.config.data.source && has_moved(data.source)) {
        throw InputError(
            fmt::format("the run's data '{}' are not there any more; name their new place with "
                        "--data",
                        data.source));
    }
    return load_splits(data, checkpoint.config.model);
}

RunData load_run_data(const Checkpoint& checkpoint, const std::string& data,
                      const std::string& split) {
    DataConfig config = checkpoint.config.data;
    const bool is_other = !data.empty() && absolute_source(data) != absolute_source(config.source);
    if (is_other && split.empty() && is_one_set(data)) return load_run_examples(checkpoint, data);
    if (is_other) {
        config.source = data;
        config.validation = 0;  // was for the run's own data
    }
    RunData loaded;
    loaded.source = config.source;
    loaded.splits = load_run_splits(config, checkpoint);
    loaded.split = chosen_split(split, loaded.splits, loaded.source);
    check_fits(loaded, checkpoint);
    return loaded;
}

void check_output(const std::string& option, const std::filesystem::path& file,
                  const std::vector<std::filesystem::path>& inputs) {
    namespace fs = std::filesystem;
    check_writable(file);
    const fs::path target = follow_links(file);
    const auto is_picture_in = [](const fs::path& path, const fs::path& folder) {
        std::error_code error;
        return fs::is_directory(folder, error) && is_picture(path) &&
               same_file(folder_of(path), folder);
    };
    for (const fs::path& input : inputs) {
        const bool is_inside = is_picture_in(file, input) || is_picture_in(target, input);
        if (!is_inside && !same_file(target, input)) continue;
        throw InputError(fmt::format("{} {}: it would {} {}, which is read; choose another file",
                                     option, file.string(),
                                     is_inside ? "join the images of" : "replace", input.string()));
    }
}

void check_npy(const std::string& option, const std::filesystem::path& file) {
    if (file.extension() == ".npy") return;
    throw InputError(fmt::format("{} {}: must end in .npy", option, file.string()));
}

OutputKind output_kind(const std::filesystem::path& out, const ImageShape& shape) {
    const std::string ending = out.extension().string();
    if (ending == ".npy") return OutputKind::npy;
    if (ending != ".png") {
        throw InputError(fmt::format("--out {}: must end in .png or .npy", out.string()));
    }
    if (!is_drawable(shape)) {
        throw InputError(
            fmt::format("--out {}: examples of {} cannot be drawn; use a file that ends in .npy",
                        out.string(), to_text(shape)));
    }
    return OutputKind::png;
}

void check_images(const std::filesystem::path& out, const ImageShape& shape, std::size_t count) {
    if (output_kind(out, shape) == OutputKind::png) {
        check_png_grid(shape, count, grid_columns(count));
    }
}

void write_images(const std::filesystem::path& out, std::span<const float> images,
                  const ImageShape& shape) {
    const std::size_t count = images.size() / shape.pixels();
    if (output_kind(out, shape) == OutputKind::png) {
        write_png_grid(out, images, shape, grid_columns(count));
        return;
    }
    std::vector<std::size_t> sizes = {count};
    if (shape.height > 1) sizes.push_back(shape.height);
    sizes.push_back(shape.width);
    if (shape.channels > 1) sizes.push_back(shape.channels);
    write_npy(out, images, sizes);
}

}  // namespace vae
