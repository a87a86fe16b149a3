// The norm of each tensor's gradient, and what follows from it for the step.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "host/config.h"
#include "host/parameters.h"

namespace vae::cpu {

// For arenas of one layout. Nothing is allocated after the constructor.
class GradientStatistics {
  public:
    explicit GradientStatistics(const ParameterLayout& layout);

    // Computes  squares[t] = Σ g² over tensor t, padding left out; n[t] = sqrt(squares[t])
    //           scales[t] = f[t]·c; f[t] = 1 / (n[t] + 1e-7) if train.normalize_gradients, else 1
    //           c = min(1, clip_norm / sqrt(Σ_t (f[t]·n[t])²)) if train.clip_norm > 0, else 1
    // Numerics  double, in an order that does not depend on the number of threads. The square of a
    //           float neither rounds nor overflows, so a sum of them is finite if and only if every
    //           gradient is
    template <class T>
    void measure(const T* gradients, const TrainConfig& train);

    // Of the first tensor in layout order whose gradient is not finite, its place there.
    std::optional<std::size_t> first_bad() const;

    std::span<const double> squares() const { return squares_; }
    // By what each tensor's gradient is to be multiplied; of no meaning if one is not finite.
    std::span<const double> scales() const { return scales_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }

  private:
    void find_scales(const TrainConfig& train);

    std::vector<Tensor> tensors_;
    std::vector<double> squares_;
    std::vector<double> scales_;
    std::vector<double> partials_;  // of the tensor that is being summed
};

}  // namespace vae::cpu
