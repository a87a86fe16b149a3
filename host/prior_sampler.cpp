#include "host/prior_sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "host/noise.h"

namespace vae {

PriorSampler::PriorSampler(const ModelConfig& model, const ParameterLayout& layout,
                           std::span<const float> parameters, Backend& backend)
    : latent_(model.latent) {
    if (model.prior == Prior::normal) return;
    const auto values_of = [&](const Tensor& tensor) {
        return parameters.subspan(tensor.offset, tensor.size);
    };
    std::vector<double> weights(model.prior_components, 1.0);
    std::vector<float> logvar;
    if (model.prior == Prior::vamp) {
        Posterior posterior = backend.encode(values_of(layout.pseudo_inputs));
        mean_ = std::move(posterior.mu);
        logvar = std::move(posterior.logvar);
    } else {
        const auto mean = values_of(layout.prior_mean);
        mean_.assign(mean.begin(), mean.end());
        for (const float value : values_of(layout.prior_logvar)) {
            logvar.push_back(std::clamp(value, static_cast<float>(model.logvar_min),
                                        static_cast<float>(model.logvar_max)));
        }
        const auto logits = values_of(layout.prior_logits);
        const float top = *std::max_element(logits.begin(), logits.end());
        std::transform(logits.begin(), logits.end(), weights.begin(), [top](float logit) {
            return std::exp(static_cast<double>(logit) - static_cast<double>(top));
        });
    }
    double total = 0;
    for (const double weight : weights) cumulative_.push_back(total += weight);
    for (const float value : logvar) sigma_.push_back(std::exp(value / 2));
}

std::size_t PriorSampler::component(float uniform) const {
    const double wanted = static_cast<double>(uniform) * cumulative_.back();
    const auto found = std::lower_bound(cumulative_.begin(), cumulative_.end(), wanted);
    return static_cast<std::size_t>(std::min(found, cumulative_.end() - 1) - cumulative_.begin());
}

std::vector<float> PriorSampler::draw(std::uint64_t seed, std::size_t count) const {
    std::vector<float> all(count * latent_);
    NoiseAddress address{.seed = seed, .purpose = Purpose::prior_sample};
    for (std::size_t row = 0; row < count; ++row) {
        const std::span<float> z = std::span(all).subspan(row * latent_, latent_);
        address.example = static_cast<std::uint32_t>(row);
        address.sample = 0;
        fill_normal(address, z);
        if (cumulative_.empty()) continue;
        address.sample = 1;
        float uniform = 0;
        fill_uniform(address, std::span(&uniform, 1));
        const std::size_t first = component(uniform) * latent_;
        for (std::size_t j = 0; j < latent_; ++j) {
            z[j] = mean_[first + j] + sigma_[first + j] * z[j];
        }
    }
    return all;
}

}  // namespace vae
