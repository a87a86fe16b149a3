#include "host/latent_statistics.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "host/importance.h"
#include "host/row_blocks.h"
#include "host/sample_statistics.h"

namespace vae {
namespace {

constexpr std::size_t kBlock = 256;  // posteriors whose densities are taken at once

// log q(z_i) of draws z[draws, latent] under the mean of the posteriors.
class AggregatePosterior {
  public:
    AggregatePosterior(const Posterior& posterior, std::size_t latent)
        : posterior_(posterior), latent_(latent), size_(posterior.mu.size() / latent) {}

    std::vector<double> log_density(const std::vector<float>& z) {
        std::vector<LogSum> sums(z.size() / latent_);
        for (std::size_t first = 0; first < size_; first += kBlock) {
            const std::size_t count = std::min(kBlock, size_ - first);
            load(first, count);
            for (std::size_t i = 0; i < sums.size(); ++i) {
                densities(z.data() + i * latent_, count);
                for (std::size_t n = 0; n < count; ++n) sums[i].add(density_[n]);
            }
        }
        std::vector<double> result;
        const double log_size = std::log(static_cast<double>(size_));
        for (const LogSum& sum : sums) result.push_back(sum.log() - log_size);
        return result;
    }

  private:
    // Transposed, so that the loop over posteriors runs over neighbours.
    void load(std::size_t first, std::size_t count) {
        mu_.resize(latent_ * kBlock);
        precision_.resize(latent_ * kBlock);
        constant_.assign(kBlock, 0.0);
        for (std::size_t n = 0; n < count; ++n) {
            for (std::size_t j = 0; j < latent_; ++j) {
                const std::size_t from = (first + n) * latent_ + j;
                const auto logvar = static_cast<double>(posterior_.logvar[from]);
                mu_[j * kBlock + n] = static_cast<double>(posterior_.mu[from]);
                precision_[j * kBlock + n] = std::exp(-logvar);
                constant_[n] -= (logvar + std::log(2 * std::numbers::pi)) / 2;
            }
        }
    }

    void densities(const float* z, std::size_t count) {
        density_ = constant_;
        for (std::size_t j = 0; j < latent_; ++j) {
            const auto value = static_cast<double>(z[j]);
            const double* mu = mu_.data() + j * kBlock;
            const double* precision = precision_.data() + j * kBlock;
            for (std::size_t n = 0; n < count; ++n) {
                const double d = value - mu[n];
                density_[n] -= d * d * precision[n] / 2;
            }
        }
    }

    const Posterior& posterior_;
    std::size_t latent_;
    std::size_t size_;
    std::vector<double> mu_;
    std::vector<double> precision_;
    std::vector<double> constant_;
    std::vector<double> density_;
};

// log q(z|x) of the posterior of one example.
double log_posterior(const Posterior& posterior, std::size_t example, std::size_t latent,
                     const float* z) {
    double twice = 0;
    for (std::size_t j = 0; j < latent; ++j) {
        const auto logvar = static_cast<double>(posterior.logvar[example * latent + j]);
        const double d =
            static_cast<double>(z[j]) - static_cast<double>(posterior.mu[example * latent + j]);
        twice -= d * d * std::exp(-logvar) + logvar + std::log(2 * std::numbers::pi);
    }
    return twice / 2;
}

void add_dimensions(const Posterior& posterior, std::size_t examples, std::size_t latent,
                    LatentStatistics& statistics) {
    std::vector<double> means(examples);
    for (std::size_t j = 0; j < latent; ++j) {
        double kl = 0;
        for (std::size_t b = 0; b < examples; ++b) {
            const auto mu = static_cast<double>(posterior.mu[b * latent + j]);
            const auto logvar = static_cast<double>(posterior.logvar[b * latent + j]);
            means[b] = mu;
            kl += (mu * mu + std::expm1(logvar) - logvar) / 2;
        }
        statistics.kl.push_back(kl / static_cast<double>(examples));
        const double variance = examples < 2 ? 0 : variance_of(means);
        statistics.mean_variance.push_back(variance);
        if (variance > kActiveVariance) ++statistics.active_units;
    }
}

}  // namespace

LatentStatistics latent_statistics(Backend& backend, Split split, std::size_t examples,
                                   std::size_t latent, std::uint64_t seed, std::size_t most_draws) {
    LatentStatistics statistics;
    const Posterior posterior = encode_examples(backend, split, examples);
    add_dimensions(posterior, examples, latent, statistics);

    statistics.draws = std::min(examples, most_draws);
    std::vector<std::uint32_t> rows;
    for (std::size_t i = 0; i < statistics.draws; ++i) {
        rows.push_back(static_cast<std::uint32_t>(i * examples / statistics.draws));
    }
    std::vector<float> z;
    std::vector<double> log_ratio;
    DrawRequest request;
    request.split = split;
    request.rows = rows;
    request.seed = seed;
    request.wants_z = true;
    backend.draw(request, [&](const DrawBlock& block) {
        z.insert(z.end(), block.z.begin(), block.z.end());
        log_ratio.insert(log_ratio.end(), block.log_ratio.begin(), block.log_ratio.end());
    });
    const auto log_aggregate = AggregatePosterior(posterior, latent).log_density(z);
    std::vector<double> information;
    std::vector<double> divergence;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double gained =
            log_posterior(posterior, rows[i], latent, z.data() + i * latent) - log_aggregate[i];
        information.push_back(gained);
        divergence.push_back(log_ratio[i] - gained);
    }
    statistics.information = {mean_of(information), error_of_mean(information)};
    statistics.aggregate_kl = {mean_of(divergence), error_of_mean(divergence)};
    return statistics;
}

}  // namespace vae
