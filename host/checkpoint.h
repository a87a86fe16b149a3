// A training run at rest: parameters, moments, average and all that is needed to go on exactly, as
// safetensors. Tensors have their logical shapes (no padding): for each tensor of the
// ParameterLayout <name>, <moment>.<name> for each moment of the optimiser (adam.m, adam.v; see
// moment_names) and, if there is an average, ema.<name>, all F32. Metadata, all text: format,
// format_version, program_version, config (TOML), step, seed, running_mean, image (HxWxC),
// train_examples, and the sums and skipped steps of the running epoch; with train.patience also
// best_elbo, best_epoch and stale_epochs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/config.h"
#include "host/dataset.h"
#include "host/early_stopping.h"
#include "host/parameters.h"
#include "host/shape.h"

namespace vae {

struct Checkpoint {
    Config config;
    ImageShape shape;                  // of an example
    std::uint64_t train_examples = 0;  // size of the training split
    TrainingState state;
    TrainTotals epoch_totals;      // of the running epoch; nothing at an epoch's end
    double epoch_seconds = 0;      // spent training in the running epoch
    EarlyStopping early_stopping;  // kept where train.patience is not 0
    std::string program_version;

    ParameterLayout layout() const { return {config.model, shape.pixels()}; }
};

// Atomic: the file at `path` is the old one or the new one, whole. Throws RunError.
void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

// Throws InputError, naming the file and what is wrong with it: not a checkpoint, another format
// version, a tensor that is missing, left over or of another shape than the settings imply.
Checkpoint load_checkpoint(const std::filesystem::path& path);

}  // namespace vae
