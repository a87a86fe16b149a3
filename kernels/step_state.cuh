// How a kernel reads the state of its step.
#pragma once

#include <cuda_runtime.h>

#include "kernels/step_state.h"

namespace vae::kernels {

// A factor of the KL term, times the step's beta where there is a step.
__device__ inline double with_beta(double factor, const StepState* state) {
    return state != nullptr ? factor * state->beta : factor;
}

}  // namespace vae::kernels
