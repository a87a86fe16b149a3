// How much the gradient's estimators scatter: the same parameters and examples, other draws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/config.h"
#include "host/row_blocks.h"

namespace vae {

struct Estimator {
    std::string name;  // for people
    ObjectiveConfig objective;
};

// SGVB-B and SGVB-A with one draw and with `samples` (2 or more), IWAE, DReG, and the score
// function with each baseline: those that the other settings allow.
std::vector<Estimator> gradient_estimators(const Config& config, std::uint32_t samples);

// Of the gradients of some tensors, taken as one vector g, over independent draws.
struct Scatter {
    double variance = 0;      // E‖g − E g‖², unbiased
    double squared_mean = 0;  // ‖E g‖², unbiased: it may be below 0 where noise is all there is
    // ‖E g‖ / sqrt(E‖g − E g‖²); NaN where squared_mean is below 0.
    double signal_to_noise() const;
};

struct GradientScatter {
    Estimator estimator;
    Scatter encoder;  // parameters whose name starts with "encoder."
    Scatter decoder;  // all others
};

// Mean and variance of vectors that come one by one (Welford 1962).
class VectorMoments {
  public:
    // Throws std::invalid_argument unless all have one length.
    void add(std::span<const double> values);
    // NaN of fewer than two.
    Scatter scatter() const;

  private:
    std::size_t count_ = 0;
    std::vector<double> mean_;
    double squares_ = 0;  // Σ‖g − mean‖²
};

// The gradients of `repeats` steps on the same rows of the training split, at the parameters of
// `state`; the backend has the data and estimator's objective. A running-mean baseline is at the
// signal's mean over these rows.
GradientScatter gradient_scatter(Backend& backend, const Estimator& estimator,
                                 const TrainingState& state, std::span<const std::uint32_t> rows,
                                 double beta, std::uint32_t repeats,
                                 const RowsDone& on_repeat = {});

// A table, an object for programs, and a picture (SVG): bars on a logarithmic scale.
std::string scatter_table(const std::vector<GradientScatter>& all);
nlohmann::ordered_json scatter_json(const std::vector<GradientScatter>& all);
std::string scatter_svg(const std::vector<GradientScatter>& all, const std::string& title);

}  // namespace vae
