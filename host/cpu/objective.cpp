#include "host/cpu/objective.h"

#include <algorithm>
#include <cmath>

namespace vae::cpu {
namespace {

// Of one example; samples entries each.
template <class T>
DrawWeights<T> advanced(const DrawWeights<T>& weights, std::size_t by) {
    return {weights.decoder + by, weights.path + by, weights.ratio + by, weights.score + by};
}

double mean_of(const auto* values, std::size_t count) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
    return sum / static_cast<double>(count);
}

template <class T>
class Example {
  public:
    Example(const ObjectiveConfig& config, double beta, const T* recon, const T* log_ratio)
        : config_(config),
          samples_(config.samples),
          beta_(beta),
          recon_(recon),
          ratio_(log_ratio) {}

    // −log mean_s w_s, from the largest weight on, so that none overflows.
    double iwae_loss() const {
        return std::log(static_cast<double>(samples_)) - largest() - std::log(sum_of_weights());
    }

    void iwae_weights(const DrawWeights<T>& weights) const {
        const bool is_dreg = config_.gradient == EncoderGradient::dreg;
        const double top = largest();
        const double sum = sum_of_weights();
        for (std::size_t s = 0; s < samples_; ++s) {
            const double v = std::exp(log_weight(s) - top) / sum;
            const double path = is_dreg ? 1 - beta_ * (1 - v) : 1;
            weights.decoder[s] = static_cast<T>(v);
            weights.path[s] = static_cast<T>(path);
            weights.ratio[s] = static_cast<T>(beta_ * v * path);
            weights.score[s] = static_cast<T>(is_dreg ? 0 : beta_ * v);
        }
    }

    void elbo_weights(const DrawWeights<T>& weights) const {
        const double each = 1 / static_cast<double>(samples_);
        const double ratio = config_.kl == KlTerm::sampled ? beta_ * each : 0;
        std::fill_n(weights.decoder, samples_, static_cast<T>(each));
        std::fill_n(weights.path, samples_, T(1));
        std::fill_n(weights.ratio, samples_, static_cast<T>(ratio));
        std::fill_n(weights.score, samples_, static_cast<T>(ratio));
    }

    double mean_signal() const {
        double sum = 0;
        for (std::size_t s = 0; s < samples_; ++s) sum += signal(s);
        return sum / static_cast<double>(samples_);
    }

    void score_weights(double running_mean, const DrawWeights<T>& weights) const {
        const auto count = static_cast<double>(samples_);
        const double mean = mean_signal();
        for (std::size_t s = 0; s < samples_; ++s) {
            double advantage = signal(s);
            if (config_.baseline == Baseline::running_mean) advantage -= running_mean;
            // signal − (Σ − signal)/(S − 1)
            if (config_.baseline == Baseline::leave_one_out) {
                advantage = (signal(s) - mean) * count / (count - 1);
            }
            weights.decoder[s] = static_cast<T>(1 / count);
            weights.path[s] = 0;
            weights.ratio[s] = 0;
            weights.score[s] = static_cast<T>(advantage / count);
        }
    }

  private:
    double log_weight(std::size_t s) const {
        return -static_cast<double>(recon_[s]) - beta_ * static_cast<double>(ratio_[s]);
    }
    double signal(std::size_t s) const {
        return config_.kl == KlTerm::sampled ? -log_weight(s) : static_cast<double>(recon_[s]);
    }
    double largest() const {
        double top = log_weight(0);
        for (std::size_t s = 1; s < samples_; ++s) top = std::max(top, log_weight(s));
        return top;
    }
    // Relative to the largest.
    double sum_of_weights() const {
        const double top = largest();
        double sum = 0;
        for (std::size_t s = 0; s < samples_; ++s) sum += std::exp(log_weight(s) - top);
        return sum;
    }

    const ObjectiveConfig& config_;
    std::size_t samples_;
    double beta_;
    const T* recon_;
    const T* ratio_;
};

}  // namespace

template <class T>
double objective(const ObjectiveConfig& config, double beta, double running_mean,
                 std::size_t examples, const DrawLosses<T>& draws, const ExampleLosses<T>& losses,
                 const DrawWeights<T>& weights) {
    const std::size_t samples = config.samples;
    const bool is_score = config.gradient == EncoderGradient::score;
    double signals = 0;
    for (std::size_t b = 0; b < examples; ++b) {
        const std::size_t r = b * samples;
        const Example<T> example(config, beta, draws.recon + r, draws.log_ratio + r);
        const double recon = mean_of(draws.recon + r, samples);
        const double kl = config.kl == KlTerm::sampled ? mean_of(draws.log_ratio + r, samples)
                                                       : static_cast<double>(draws.kl[b]);
        losses.recon[b] = static_cast<T>(recon);
        losses.kl[b] = static_cast<T>(kl);
        const double loss_kl =
            draws.loss_kl == nullptr ? kl : static_cast<double>(draws.loss_kl[b]);
        losses.loss[b] = static_cast<T>(config.bound == Bound::iwae ? example.iwae_loss()
                                                                    : recon + beta * loss_kl);
        if (is_score) signals += example.mean_signal();
        if (weights.decoder == nullptr) continue;
        const DrawWeights<T> own = advanced(weights, r);
        if (config.bound == Bound::iwae) {
            example.iwae_weights(own);
        } else if (is_score) {
            example.score_weights(running_mean, own);
        } else {
            example.elbo_weights(own);
        }
    }
    return examples == 0 ? 0 : signals / static_cast<double>(examples);
}

template double objective(const ObjectiveConfig&, double, double, std::size_t,
                          const DrawLosses<float>&, const ExampleLosses<float>&,
                          const DrawWeights<float>&);
template double objective(const ObjectiveConfig&, double, double, std::size_t,
                          const DrawLosses<double>&, const ExampleLosses<double>&,
                          const DrawWeights<double>&);

}  // namespace vae::cpu
