// A trained run, ready to evaluate, sample, encode and decode.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/backend_choice.h"
#include "host/checkpoint.h"

namespace vae {

struct LoadedRun {
    Checkpoint checkpoint;
    std::unique_ptr<Backend> backend;  // holds the checkpoint's parameters, and no data yet
    std::string note;                  // which backend it is
};

// Which parameters the commands use, for people: empty, or that it is their average.
std::string parameters_note(const TrainConfig& train);

// RUN is a run's folder or a checkpoint file; `backend` as in choose_backend.
LoadedRun load_run(const std::filesystem::path& run, const std::string& backend);

// The examples that a command reads for a run: values are checked, and are as many as the run's.
struct RunData {
    std::string source;
    Splits splits;
    Split split = Split::test;  // where they are
    bool is_all = false;        // they are all that the source has

    const Dataset& examples() const { return splits.of(split); }
    // "train", "validation", "test" or "all".
    std::string split_name() const { return is_all ? "all" : name_of(split); }
};

// load_splits for a run. When its own data are gone the InputError says how to name others.
Splits load_run_splits(const DataConfig& data, const Checkpoint& checkpoint);

// From the run's own data when `data`, the SPEC of --data, is empty or names them; else from the
// SPEC, of which no validation split is held out. `split` names the split; if empty it is the
// held-out one, or all examples of a FILE or FOLDER other than the run's. Throws InputError.
RunData load_run_data(const Checkpoint& checkpoint, const std::string& data,
                      const std::string& split = "");

// As load_examples: all of a FILE or FOLDER, the run's too; else the test set. Throws InputError.
RunData load_run_examples(const Checkpoint& checkpoint, const std::string& data);

// Throws unless `file`, the value of `option`, can be written without loss: RunError as
// check_writable, InputError when it is one of `inputs`, the files and folders of images that the
// command reads, or a picture in such a folder. To be called before the work that is to be written.
void check_output(const std::string& option, const std::filesystem::path& file,
                  const std::vector<std::filesystem::path>& inputs);

// Throws InputError unless `file`, the value of `option`, ends in .npy.
void check_npy(const std::string& option, const std::filesystem::path& file);

// What --out names, told by its ending.
enum class OutputKind { png, npy };
// Throws InputError for another ending, and for .png when the shape cannot be drawn.
OutputKind output_kind(const std::filesystem::path& out, const ImageShape& shape);

// Throws InputError when write_images could not draw as many, to be called before they are made.
void check_images(const std::filesystem::path& out, const ImageShape& shape, std::size_t count);

// Writes images[n, pixels] as a grid of pictures, or as an array [N,H,W,C], [N,H,W] or [N,D].
void write_images(const std::filesystem::path& out, std::span<const float> images,
                  const ImageShape& shape);

}  // namespace vae
