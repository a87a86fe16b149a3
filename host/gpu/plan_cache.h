// The plans in which the hidden layers of training steps were the fastest, as the file of all GPUs
// of a home has them.
#pragma once

#include <filesystem>
#include <optional>

#include "host/config.h"
#include "host/parameters.h"

namespace vae::gpu {

// A plan, and what a training step took in it.
struct MeasuredPlan {
    FusionPlan plan = FusionPlan::automatic;  // automatic: what counting finds
    double microseconds = 0;
};

// Whether the model's hidden layers can have the plan on the current device. Throws CudaError.
bool can_have(FusionPlan plan, const ModelConfig& model);

// The plan that the file has for steps of this configuration, computed in this precision, on the
// current device; nothing where it has none, or one that cannot be had. What layers cost decides:
// the precision, the hidden ones' activation, the sizes of all, the rows that a step passes through
// them at a time, and whether plan `fused` takes the heads and the output too.
std::optional<FusionPlan> kept_plan(const Config& config, const ParameterLayout& layout,
                                    Precision precision);

// Puts a plan into the file, in the place of that of the same steps: see save_tuning().
std::optional<std::filesystem::path> save_plan(const Config& config, const ParameterLayout& layout,
                                               Precision precision, const MeasuredPlan& plan);

}  // namespace vae::gpu
