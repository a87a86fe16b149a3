// What the latent code of a trained model holds, over the examples of a split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "host/backend.h"

namespace vae {

// A dimension is active if the variance of its posterior mean over the examples is above this
// (Burda et al. 2016).
inline constexpr double kActiveVariance = 0.01;

// An estimate and its standard error.
struct Estimated {
    double value = 0;
    double error = 0;
};

// In nats, over `examples` of the split. With q(z) = (1/N) Σ_n q(z|x_n) the aggregate posterior of
// N examples,
//   information   I(x;z) = E[log q(z|x) − log q(z)], at most log N
//   aggregate_kl  KL(q(z) ‖ p(z)) = E[log q(z) − log p(z)]
// add up to the mean of KL(q(z|x) ‖ p(z)) (Hoffman & Johnson 2016). Both expectations are means
// over one z ~ q(z|x) of each of `draws` examples; log q(z) is exact.
struct LatentStatistics {
    std::vector<double> mean_variance;  // of the posterior mean, [latent]
    std::vector<double> kl;             // mean KL(q(z_j|x) ‖ N(0, 1)) of the marginals, [latent]
    std::size_t active_units = 0;
    std::size_t examples = 0;  // all of the split, or as many first ones as fit into memory
    std::size_t draws = 0;
    Estimated information;
    Estimated aggregate_kl;
};

// Of all examples of a split, with epsilon from `seed`. At most `most_draws` examples, evenly
// spaced, give the draws, fewer where the code is very wide: the cost is draws · examples · latent,
// or latent²/2 of a full covariance.
LatentStatistics latent_statistics(Backend& backend, Split split, std::size_t examples,
                                   const Heads& heads, std::uint64_t seed,
                                   std::size_t most_draws = 2000);

}  // namespace vae
