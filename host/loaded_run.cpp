#include "host/loaded_run.h"

#include <fmt/format.h>

#include "host/error.h"
#include "host/image.h"
#include "host/npy.h"
#include "host/pictures.h"
#include "host/run_folder.h"

namespace vae {

LoadedRun load_run(const std::filesystem::path& run, const std::string& backend) {
    LoadedRun loaded;
    loaded.checkpoint = load_checkpoint(find_checkpoint(run));
    ChosenBackend chosen =
        choose_backend(backend, loaded.checkpoint.config, loaded.checkpoint.layout());
    loaded.backend = std::move(chosen.backend);
    loaded.note = std::move(chosen.note);
    loaded.backend->set_state(loaded.checkpoint.state);
    return loaded;
}

void check_fits(const Dataset& data, const std::string& source, const Checkpoint& checkpoint) {
    if (data.shape.pixels() == checkpoint.shape.pixels()) return;
    throw InputError(fmt::format("{}: examples are {}, but the run was trained on {}", source,
                                 to_text(data.shape), to_text(checkpoint.shape)));
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
