// What changes from one training step to the next. Kernels of a captured graph find it on the
// device: a replay sees what stands there then.
#pragma once

namespace vae::kernels {

// Computed on the host, in double where it is rounded here.
struct StepState {
    unsigned long long step = 0;  // of the run, from 0: addresses the step's noise
    double beta = 1;              // weight of the KL term in the loss
    float step_size = 0;          // learning rate; adam: learning rate / (1 − beta1^t), with
                                  // t = step + 1
    float inverse_sqrt_correction2 = 1;  // adam: 1 / sqrt(1 − beta2^t)
    float shrink = 1;  // of parameters before the step: 1 − learning rate·decoupled decay
};

}  // namespace vae::kernels
