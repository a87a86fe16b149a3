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
// Entries of mu, and of L below its diagonal, that are held: half a GiB.
constexpr std::size_t kMostEntries = std::size_t{1} << 27;
// Bounds the time that I(x;z) takes to some seconds where kLeastDraws do not take more.
constexpr double kMostProducts = 4e9;
constexpr double kLeastDraws = 100;

// Posterior n as N(mu, L·Lᵀ), of which the inverse of L is looked at. Of a diagonal covariance L
// has its diagonal alone.
class Factor {
  public:
    Factor(const Posterior& posterior, std::size_t latent, std::size_t n)
        : latent_(latent),
          mu_(posterior.mu.data() + n * latent),
          logvar_(posterior.logvar.data() + n * latent),
          tril_(posterior.tril.empty() ? nullptr
                                       : posterior.tril.data() + n * latent * (latent - 1) / 2) {}

    double mu(std::size_t i) const { return static_cast<double>(mu_[i]); }
    double logvar(std::size_t i) const { return static_cast<double>(logvar_[i]); }
    // The first column of row i that is not zero.
    std::size_t first(std::size_t i) const { return tril_ == nullptr ? i : 0; }
    double below(std::size_t i, std::size_t j) const {
        return static_cast<double>(tril_[i * (i - 1) / 2 + j]);
    }
    double variance(std::size_t i) const {
        double sum = std::exp(logvar(i));
        for (std::size_t j = first(i); j < i; ++j) sum += below(i, j) * below(i, j);
        return sum;
    }
    // log N(z; mu, L·Lᵀ), by solving L y = z − mu.
    double log_density(const float* z) const {
        std::vector<double> y(latent_);
        double twice = 0;
        for (std::size_t i = 0; i < latent_; ++i) {
            double sum = static_cast<double>(z[i]) - mu(i);
            for (std::size_t j = first(i); j < i; ++j) sum -= below(i, j) * y[j];
            y[i] = sum * std::exp(-logvar(i) / 2);
            twice -= y[i] * y[i] + logvar(i) + std::log(2 * std::numbers::pi);
        }
        return twice / 2;
    }

  private:
    std::size_t latent_;
    const float* mu_;
    const float* logvar_;
    const float* tril_;
};

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
        result.reserve(sums.size());
        const double log_size = std::log(static_cast<double>(size_));
        for (const LogSum& sum : sums) result.push_back(sum.log() - log_size);
        return result;
    }

  private:
    std::size_t first_column(std::size_t i) const { return posterior_.tril.empty() ? i : 0; }

    // Transposed, so that the loop over posteriors runs over neighbours: factor_ holds the entries
    // of L below its diagonal, row by row.
    void load(std::size_t first, std::size_t count) {
        mu_.resize(latent_ * kBlock);
        offset_.resize(latent_ * kBlock);
        inverse_.resize(latent_ * kBlock);
        factor_.resize(posterior_.tril.empty() ? 0 : latent_ * (latent_ - 1) / 2 * kBlock);
        constant_.assign(kBlock,
                         -static_cast<double>(latent_) * std::log(2 * std::numbers::pi) / 2);
        for (std::size_t n = 0; n < count; ++n) {
            const Factor factor(posterior_, latent_, first + n);
            std::size_t entry = n;
            for (std::size_t i = 0; i < latent_; ++i) {
                mu_[i * kBlock + n] = factor.mu(i);
                inverse_[i * kBlock + n] = std::exp(-factor.logvar(i) / 2);
                constant_[n] -= factor.logvar(i) / 2;
                for (std::size_t j = factor.first(i); j < i; ++j, entry += kBlock) {
                    factor_[entry] = factor.below(i, j);
                }
            }
        }
    }

    // Solves L y = z − mu for the block's posteriors at once; y takes the place of z − mu.
    void densities(const float* z, std::size_t count) {
        density_ = constant_;
        const double* factor = factor_.data();
        for (std::size_t i = 0; i < latent_; ++i) {
            const auto value = static_cast<double>(z[i]);
            double* y = offset_.data() + i * kBlock;
            for (std::size_t n = 0; n < count; ++n) y[n] = value - mu_[i * kBlock + n];
            for (std::size_t j = first_column(i); j < i; ++j, factor += kBlock) {
                const double* solved = offset_.data() + j * kBlock;
                for (std::size_t n = 0; n < count; ++n) y[n] -= factor[n] * solved[n];
            }
            for (std::size_t n = 0; n < count; ++n) {
                y[n] *= inverse_[i * kBlock + n];
                density_[n] -= y[n] * y[n] / 2;
            }
        }
    }

    const Posterior& posterior_;
    std::size_t latent_;
    std::size_t size_;
    std::vector<double> mu_;
    std::vector<double> inverse_;  // of L's diagonal
    std::vector<double> factor_;
    std::vector<double> offset_;
    std::vector<double> constant_;
    std::vector<double> density_;
};

void add_dimensions(const Posterior& posterior, std::size_t examples, std::size_t latent,
                    LatentStatistics& statistics) {
    std::vector<double> means(examples);
    for (std::size_t j = 0; j < latent; ++j) {
        double kl = 0;
        for (std::size_t b = 0; b < examples; ++b) {
            const Factor factor(posterior, latent, b);
            means[b] = factor.mu(j);
            const double variance = factor.variance(j);
            // Of a diagonal covariance the log is there.
            const double logvar = posterior.tril.empty() ? factor.logvar(j) : std::log(variance);
            kl += (means[b] * means[b] + std::expm1(logvar) - logvar) / 2;
        }
        statistics.kl.push_back(kl / static_cast<double>(examples));
        const double variance = examples < 2 ? 0 : variance_of(means);
        statistics.mean_variance.push_back(variance);
        if (variance > kActiveVariance) ++statistics.active_units;
    }
}

}  // namespace

LatentStatistics latent_statistics(Backend& backend, Split split, std::size_t examples,
                                   const Heads& heads, std::uint64_t seed, std::size_t most_draws) {
    LatentStatistics statistics;
    const std::size_t latent = heads.latent;
    const std::size_t entries = latent + heads.tril_size();
    examples = std::min(examples, kMostEntries / entries);
    statistics.examples = examples;
    const Posterior posterior = encode_examples(backend, split, examples);
    add_dimensions(posterior, examples, latent, statistics);

    const double of_draw = static_cast<double>(examples) * static_cast<double>(entries);
    const auto affordable =
        static_cast<std::size_t>(std::max(kMostProducts / of_draw, kLeastDraws));
    statistics.draws = std::min({examples, most_draws, affordable});
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
            Factor(posterior, latent, rows[i]).log_density(z.data() + i * latent) -
            log_aggregate[i];
        information.push_back(gained);
        divergence.push_back(log_ratio[i] - gained);
    }
    statistics.information = {mean_of(information), error_of_mean(information)};
    statistics.aggregate_kl = {mean_of(divergence), error_of_mean(divergence)};
    return statistics;
}

}  // namespace vae
