// What the decoder's outputs are, for each likelihood p(x|z). D is the number of pixels.
//
//   likelihood               outputs of decoder.out           what they are
//   bernoulli, onehot        [D]                              logits
//   gaussian                 [D]                              means
//   gaussian, pixel          [2·D], all means first           mean and raw log-variance
//   logistic                 [2·D], all means first           mean and raw log-scale
//   categorical              [D·levels], a pixel's together   logits
//   poisson                  [D]                              log-rates
//
// decoder.logvar[1] is the raw log-variance of all pixels (shared), or the log-variance itself that
// evaluation takes (optimal). A raw value r stands for bounded(r, …), see docs/maths.md.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "host/config.h"

namespace vae {

// Throws InputError when pixels are no whole one-hot groups.
std::size_t output_count(const ModelConfig& model, std::size_t pixels);

// Whether there is a parameter decoder.logvar.
bool has_logvar(const ModelConfig& model);

// Of the moving average of the optimal variance, over steps.
inline constexpr double kVarianceDecay = 0.99;

// Whether a pixel has a second output, its log-variance or log-scale.
bool has_scale_outputs(const ModelConfig& model);

bool is_softmax(Likelihood likelihood);

// Whether a byte b of the data stands for b rather than b/255.
bool takes_bytes_as_counts(Likelihood likelihood);

// Whether the encoder sees log2(1 + x)/8 instead of x: counts of any size are then of the size that
// initial weights and learning rates are made for, and those of a byte lie in [0, 1].
bool encodes_log_counts(Likelihood likelihood);

// The range of a learned log-variance, or of the logistic likelihood's log-scale.
struct LogBounds {
    double least = 0;
    double most = 0;
};
LogBounds log_bounds(const ModelConfig& model);

// min + softplus(u − min), u = max − softplus(max − raw): Chua et al. 2018, appendix A.1.
double bounded(double raw, const LogBounds& bounds);

// Of a Gaussian with a parameter decoder.logvar: the sigma that evaluation takes.
double sigma_of(const ModelConfig& model, double parameter);

// The decoder's rows: each example has `samples` of them, which are neighbours.
struct DrawShape {
    std::size_t examples = 0;
    std::size_t samples = 1;
};

// An array of what the outputs mean, as the dump shows it.
struct NamedOutputs {
    std::string name;
    std::vector<std::size_t> shape;
    std::vector<double> values;
};

// From outputs[rows, outputs] (with bias) and the examples x[examples, pixels]: `logits`, `mean`,
// `log_rate`; and `decoder.out.logvar` or `log_scale`, bounded, where variances or scales are
// learned: [examples, samples, …], without the samples where there is one, or [1] where all pixels
// share it. parameter is decoder.logvar; with
// the optimal variance the value is that of the batch.
std::vector<NamedOutputs> named_outputs(const ModelConfig& model, std::span<const double> outputs,
                                        std::span<const double> x, const DrawShape& draws,
                                        double parameter);

}  // namespace vae
