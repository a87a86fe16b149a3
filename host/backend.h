// The seam between the driver and what runs the model: whole steps and whole evaluations. The
// driver owns data order, seeds, schedules, logging and checkpoints. A backend owns memory,
// parameters and how a step is executed.
//
// recon = -log p(x|z) and kl = KL(q(z|x) || p(z)) are per-example sums in nats, normalising
// constants included. loss = mean over the batch of (recon + beta·kl).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/config.h"
#include "host/dataset.h"
#include "host/parameters.h"

namespace vae {

// Sums over examples, in nats; divide by examples for the mean. elbo = -(recon + kl).
struct LossTotals {
    double recon = 0;
    double kl = 0;
    double loss = 0;  // sum of (recon + beta·kl), with the beta of each step
    std::uint64_t examples = 0;

    LossTotals& operator+=(const LossTotals& other);
};

// Consecutive training steps on the training split.
struct TrainRequest {
    std::uint64_t first_step = 0;         // of the run, from 0; addresses each step's noise
    std::span<const std::uint32_t> rows;  // training examples in order, steps laid end to end
    std::uint32_t batch = 0;              // rows a step; the last step may have fewer
    double beta = 1;
    double learning_rate = 0;
};

// Parameters and Adam moments as arenas of ParameterLayout, padding included.
struct TrainingState {
    std::vector<float> parameters;
    std::vector<float> adam_m;
    std::vector<float> adam_v;
    std::uint64_t step = 0;  // optimiser steps done
};

// A tensor as compare and the dump see it: double holds float exactly.
struct TracedTensor {
    std::string name;
    std::vector<std::size_t> shape;
    std::vector<double> values;
};

// One step's forward and backward, no update. Names, in order: x[B,D], epsilon, then each hidden
// layer's output as encoder.<i>.h[B,H], then mu, logvar, z (all [B,Z]), decoder.<i>.h, what the
// outputs are (see named_outputs in output_layer.h), recon[B], kl[B], loss[1] and, in layout order,
// grad.<parameter>.
using Trace = std::vector<TracedTensor>;

// Posterior parameters, [rows, latent] each.
struct Posterior {
    std::vector<float> mu;
    std::vector<float> logvar;
};

// Calls that need data throw std::logic_error before set_data.
class Backend {
  public:
    virtual ~Backend() = default;

    // "cpu", "cpu-double" or "cuda".
    virtual std::string name() const = 0;
    // The machine it runs on, for people: "2 threads of AMD EPYC", "NVIDIA H100 80GB HBM3".
    virtual std::string device() const = 0;
    // Whether values are kept in double (a dump is then F64).
    virtual bool is_double() const { return false; }

    // Copies or keeps a reference to the splits; they outlive the backend. Throws RunError when
    // they do not fit, std::invalid_argument when their pixels are not the model's.
    virtual void set_data(const Splits& splits) = 0;

    // Arenas of layout.arena_size elements. Throws std::invalid_argument on another size.
    virtual void set_state(const TrainingState& state) = 0;
    virtual TrainingState state() = 0;
    // The parameters in the backend's own precision.
    virtual std::vector<double> exact_parameters() = 0;

    // Runs the request's steps; may return before they are done. Their losses are added to the
    // totals. Throws std::invalid_argument, before anything is done, unless rows are in the
    // training split, batch is at least 1 and first_step is the state's step: noise and Adam's bias
    // corrections count the same steps.
    virtual void train(const TrainRequest& request) = 0;
    // Waits, returns the losses of all steps since the last call, and starts from zero again.
    virtual LossTotals take_totals() = 0;

    // recon and kl over a whole split with one posterior sample an example, addressed by
    // (seed, evaluation_epsilon, 0, example). beta weighs the loss only.
    virtual LossTotals evaluate(Split split, double beta) = 0;

    // x[rows, pixels] in the likelihood's range; posterior of each row.
    virtual Posterior encode(std::span<const float> x) = 0;
    // z[rows, latent]; the likelihood's mean of each row, [rows, pixels].
    virtual std::vector<float> decode(std::span<const float> z) = 0;
    // z[rows, latent]; the decoder's outputs of each row, [rows, layout.output.out], see
    // host/output_layer.h.
    virtual std::vector<float> outputs(std::span<const float> z) = 0;
    // Rows of a split as the model sees them in evaluation (normalised, binarised if so set).
    virtual std::vector<float> examples(Split split, std::span<const std::uint32_t> rows) = 0;

    // The step that train would do on these rows: everything it computes, and no update.
    // Differentiates loss = mean over rows of (recon + beta·kl). Any first_step will do; else as
    // train, and std::invalid_argument unless there are 1 to batch rows.
    virtual Trace trace(const TrainRequest& one_step) = 0;
};

// The CPU reference: float with vectorised loops and OpenBLAS, or double as the oracle.
std::unique_ptr<Backend> make_cpu_backend(const Config& config, const ParameterLayout& layout);
std::unique_ptr<Backend> make_cpu_double_backend(const Config& config,
                                                 const ParameterLayout& layout);

}  // namespace vae
