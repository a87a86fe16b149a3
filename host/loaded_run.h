// A trained run, ready to evaluate, sample, encode and decode.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "host/backend_choice.h"
#include "host/checkpoint.h"

namespace vae {

struct LoadedRun {
    Checkpoint checkpoint;
    std::unique_ptr<Backend> backend;  // holds the checkpoint's parameters, and no data yet
    std::string note;                  // which backend it is
};

// RUN is a run's folder or a checkpoint file; `backend` as in choose_backend.
LoadedRun load_run(const std::filesystem::path& run, const std::string& backend);

// Throws InputError when the examples have another number of values than the run's.
void check_fits(const Dataset& data, const std::string& source, const Checkpoint& checkpoint);

// What --out names, told by its ending.
enum class OutputKind { png, npy };
// Throws InputError for another ending, and for .png when the shape cannot be drawn.
OutputKind output_kind(const std::filesystem::path& out, const ImageShape& shape);

// Writes images[n, pixels] as a grid of pictures, or as an array [N,H,W,C], [N,H,W] or [N,D].
void write_images(const std::filesystem::path& out, std::span<const float> images,
                  const ImageShape& shape);

}  // namespace vae
