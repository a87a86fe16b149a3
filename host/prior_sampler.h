// Codes z drawn from the prior p(z).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "host/backend.h"

namespace vae {

class PriorSampler {
  public:
    // `parameters`: an arena of the layout, those that the backend evaluates with. The backend is
    // asked for the posteriors of pseudo-inputs.
    PriorSampler(const ModelConfig& model, const ParameterLayout& layout,
                 std::span<const float> parameters, Backend& backend);

    // [count, latent]. Code i: normals at (seed, prior_sample, 0, i, 0) and, of a mixture, the
    // component by a uniform at (seed, prior_sample, 0, i, 1).
    std::vector<float> draw(std::uint64_t seed, std::size_t count) const;

  private:
    std::size_t component(float uniform) const;

    std::size_t latent_;
    // Of a mixture's components; empty for N(0, I).
    std::vector<double> cumulative_;  // weights, not normalised
    std::vector<float> mean_;         // [components, latent]
    std::vector<float> sigma_;
};

}  // namespace vae
