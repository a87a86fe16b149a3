// Measures in which plan the training steps of a network are the fastest.
#pragma once

#include <vector>

#include "host/cuda_module.h"
#include "host/gpu/plan_cache.h"

namespace vae::gpu {

// Measures what a run of this configuration computes on the current device, keeps what is the
// fastest for later runs, and reports it: the algorithms of its matrix products
// (matmul_tuning.h) and, where train.plan is "auto", then whole training steps in each
// plan that they can have. Of a plan that fails, and leaves the device able to go on, the report
// says why; plan "cublas" must run. Throws InputError when the file cannot be written, RunError
// when the device is full or fails.
TuningReport tune_run(const Config& config, const ParameterLayout& layout, const Splits& splits);

// The fastest plan; but within 2 % of it cublas or, if it is not, what counting finds.
MeasuredPlan plan_to_keep(const std::vector<MeasuredPlan>& measured);

}  // namespace vae::gpu
