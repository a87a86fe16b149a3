// The objective: from what each draw of z costs to the loss of each example, and what each draw
// weighs in the gradient. T is float or double.
//
// An example has S draws; draw s has recon_s = −log p(x|z_s) and
// log_ratio_s = log q(z_s|x) − log p(z_s), so log w_s = −recon_s − beta·log_ratio_s.
//   ELBO  loss = mean_s recon_s + beta·kl, with kl in closed form (Kingma & Welling 2014, eq. 7) or
//         as mean_s log_ratio_s (eq. 6)
//   IWAE  loss = −log mean_s w_s (Burda et al. 2016, eq. 8); its gradient weighs each draw's own by
//         v_s = w_s / Σ w (eq. 14), which are constants
#pragma once

#include <cstddef>

#include "host/config.h"

namespace vae::cpu {

// Of each draw, [examples·samples], but for [examples] of kl, the divergence in closed form, and
// of loss_kl, what stands for it in the loss (host/cpu/free_bits.h); null: kl itself.
template <class T>
struct DrawLosses {
    const T* recon = nullptr;
    const T* log_ratio = nullptr;
    const T* kl = nullptr;
    const T* loss_kl = nullptr;
};

// [examples] each. recon and kl are means over the draws, kl as the settings say; loss is what is
// minimised.
template <class T>
struct ExampleLosses {
    T* recon = nullptr;
    T* kl = nullptr;
    T* loss = nullptr;
};

// What each draw weighs in the gradient of its example's loss, [examples·samples] each. decoder is
// of recon, in the gradient that reaches the decoder; the others are those of LatentGradient.
//                      decoder  path  ratio        score
//   ELBO, kl analytic  1/S      1     0            0
//   ELBO, kl sampled   1/S      1     beta/S       beta/S
//   IWAE               v        1     beta·v       beta·v
//   IWAE, DReG         v        f     beta·v·f     0           f = 1 − beta·(1 − v)
//   ELBO, score        1/S      0     0            (signal − baseline)/S
// DReG is that of Tucker et al. 2019, eq. 8, where f = v, at beta = 1. At any beta log w has the
// score of q beta times, and so has the path derivative that it becomes: v·(1 − beta·(1 − v)).
// The signal of the score function is recon, with beta·log_ratio if kl is sampled (Ranganath et al.
// 2014); the baseline leave_one_out is the mean signal of the example's other draws.
template <class T>
struct DrawWeights {
    T* decoder = nullptr;
    T* path = nullptr;
    T* ratio = nullptr;
    T* score = nullptr;
};

// `running_mean` is the baseline of that name. Returns the mean signal of the score function, 0 for
// other gradients. weights may be all null, if no gradient is wanted.
template <class T>
double objective(const ObjectiveConfig& config, double beta, double running_mean,
                 std::size_t examples, const DrawLosses<T>& draws, const ExampleLosses<T>& losses,
                 const DrawWeights<T>& weights);

}  // namespace vae::cpu
