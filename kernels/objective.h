// The objective: from what each draw of z costs to the loss of each example, and what each draw
// weighs in the gradient.
//
// An example has S draws; draw s has recon_s = −log p(x|z_s) and
// log_ratio_s = log q(z_s|x) − log p(z_s), so log w_s = −recon_s − beta·log_ratio_s.
#pragma once

#include <cuda_runtime.h>

#include "kernels/step_state.h"

namespace vae::kernels {

// elbo         mean_s recon_s + beta·kl                 (Kingma & Welling 2014, eq. 6 and 7)
// iwae, dreg   −log mean_s w_s                           (Burda et al. 2016, eq. 8); they differ in
//              their weights (Tucker et al. 2019, eq. 8)
// score, score_leave_one_out, score_running_mean   as elbo, by the score function (Ranganath et al.
//              2014) with no baseline, the mean signal of the example's other draws, or a mean
//              over the calls before
enum class Objective { elbo, iwae, dreg, score, score_leave_one_out, score_running_mean };

// All on the device. Rows: of the draws, [examples·samples], row r is draw r % samples of example
// r / samples.
struct ObjectiveInputs {
    const float* recon = nullptr;      // rows
    const float* log_ratio = nullptr;  // rows; may be null where nothing needs it
    const float* kl = nullptr;         // [examples], in closed form; null: the mean of log_ratio
    int examples = 0;
    int samples = 1;
    double beta = 1;
    const StepState* state = nullptr;  // if there is one, beta is multiplied by its beta
    // [examples]: what stands for kl in the ELBO's loss (kernels/free_bits.h); null: kl itself.
    const float* loss_kl = nullptr;
};

// All on the device; those of the losses [examples], in nats. Each may be null, and is not written.
struct ObjectiveOutputs {
    float* recon = nullptr;  // mean over the draws
    float* kl = nullptr;     // kl, or the mean of log_ratio
    float* loss = nullptr;
    // What each draw weighs in the gradient of its example's loss, rows. decoder is of recon, in
    // the gradient that reaches the decoder; the others are those of LatentGradient.
    float* decoder = nullptr;
    float* path = nullptr;
    float* ratio = nullptr;
    float* score = nullptr;
    float* signal = nullptr;  // [examples], mean over the draws of the score function's signal
};

// Computes  the loss above, and the weights, with v_s = w_s / Σ w
//                       decoder  path  ratio       score
//             elbo        1/S     1    r           r              r = beta/S if kl is null, else 0
//             iwae        v       1    beta·v      beta·v
//             dreg        v       f    beta·v·f    0           f = 1 − beta·(1 − v)
//             score*      1/S     0    0           (signal − baseline)/S
//           signal = recon, plus beta·log_ratio if kl is null
// Shapes    any examples >= 0, samples >= 1. running_mean: one double on the device, or null
// Writes    overwrites the outputs that are not null; nothing may overlap
// Numerics  double from the floats given, draws by lane, then a fixed tree over the warp; rounded
//           once. Weights are relative to the largest log w, so none overflows. NaN in gives NaN in
//           its example. Throws std::invalid_argument when an array that the objective needs is
//           null, or score_leave_one_out has fewer than 2 draws.
// Cost      8 to 24 bytes a draw; bound by latency
// Launch    a warp an example, 8 warps a block
void objective(Objective kind, const ObjectiveInputs& inputs, const double* running_mean,
               const ObjectiveOutputs& outputs, cudaStream_t stream);

// Computes  running_mean ← m + (1 − decay)·(mean of signal − m), m its old value; the mean of
//           signal itself where m is 0, that of no step
// Shapes    signal[examples]; running_mean: one double on the device; nothing if examples is 0
// Writes    running_mean
// Numerics  double, in a fixed order. A mean that is not finite leaves it as it is.
// Cost      4 bytes an example; bound by latency
// Launch    one block of 256 threads, 64 bytes of shared memory
void update_running_mean(const float* signal, int examples, double decay, double* running_mean,
                         cudaStream_t stream);

}  // namespace vae::kernels
