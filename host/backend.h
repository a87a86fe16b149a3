// The seam between the driver and what runs the model: whole steps and whole evaluations. The
// driver owns data order, seeds, schedules, logging and checkpoints. A backend owns memory,
// parameters and how a step is executed.
//
// recon = -log p(x|z) and kl = KL(q(z|x) || p(z)) are per-example sums in nats, normalising
// constants included, and means over the example's draws of z; kl is in closed form or estimated
// from the draws, as objective.kl says. loss is what is minimised: the mean over the batch of
// recon + beta·kl, or of minus the importance-weighted bound (docs/maths.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/config.h"
#include "host/dataset.h"
#include "host/parameters.h"
#include "host/step_profile.h"

namespace vae {

// Sums over examples, in nats; divide by examples for the mean. elbo = -(recon + kl).
struct LossTotals {
    double recon = 0;
    double kl = 0;
    double loss = 0;  // with the beta of each step
    std::uint64_t examples = 0;

    LossTotals& operator+=(const LossTotals& other);
};

inline constexpr std::size_t kClosedTotals = 2;

// What the driver decides of one step.
struct StepSchedule {
    double learning_rate = 0;
    double beta = 1;  // weight of the KL term in the loss
};

// Steps that were not taken, since a gradient or the loss was not finite: parameters, moments and
// average stayed as they were.
struct SkippedSteps {
    std::uint64_t count = 0;
    std::uint64_t first_step = 0;  // of the run, from 0; of no meaning if count is 0
    std::string first_tensor;      // its first tensor whose gradient is not finite, in layout
                                   // order; empty: only its loss is not

    // `later` are of later steps.
    SkippedSteps& operator+=(const SkippedSteps& later);
    // For people: "the gradient of encoder.0.weight" or "the loss".
    std::string cause() const;
};

// What steps of training left.
struct TrainTotals {
    LossTotals losses;  // of the steps that were taken
    SkippedSteps skipped;
};

// Examples at positions first … first + count − 1 of an epoch's order: host/shuffle.h, with the
// seed of the training.
struct EpochPart {
    std::uint32_t epoch = 0;
    std::uint32_t first = 0;
    std::uint32_t count = 0;
};

// Consecutive training steps on the training split.
struct TrainRequest {
    std::uint64_t first_step = 0;              // of the run, from 0; addresses each step's noise
    std::span<const std::uint32_t> rows = {};  // training examples in order, steps laid end to end
    std::uint32_t batch = 0;                   // rows a step; the last step may have fewer
    std::vector<StepSchedule> schedule;        // of each step, or a single one for all of them
    EpochPart part = {};                       // training examples as rows, if that is empty

    std::size_t examples() const { return rows.empty() ? part.count : rows.size(); }
    const StepSchedule& step_schedule(std::size_t i) const {
        return schedule.size() == 1 ? schedule.front() : schedule[i];
    }
};

// Arenas of ParameterLayout, padding included.
struct TrainingState {
    std::vector<float> parameters;
    std::vector<std::vector<float>> moments;  // the optimiser's, as many as moment_names
    std::vector<float> ema;                   // average of the parameters; empty if train.ema is 0
    std::uint64_t step = 0;                   // optimiser steps done, those skipped included
    double running_mean = 0;  // of the score function's signal: objective.baseline; 0: of none yet

    // What evaluation takes: the average, if there is one.
    const std::vector<float>& evaluated_parameters() const {
        return ema.empty() ? parameters : ema;
    }
};

// The running mean moves this far towards each step's mean signal: 1 − its decay. The first signal
// sets it.
inline constexpr double kRunningMeanRate = 0.01;

// "adam.m" and "adam.v" of Adam and AdamW, "adagrad.sum", "sgd.momentum"; none for SGD without
// momentum. A checkpoint calls a parameter's moment <moment>.<parameter>.
std::vector<std::string> moment_names(const TrainConfig& train);

// Step 0: moments are zero, and the average starts at the parameters.
TrainingState start_state(const TrainConfig& train, std::vector<float> parameters);

// A tensor as compare and the dump see it: double holds float exactly.
struct TracedTensor {
    std::string name;
    std::vector<std::size_t> shape;
    std::vector<double> values;
};

// One step's forward and backward, no update. With S = objective.samples draws of z an example,
// [B,S,…] stands for [B,…] where S is 1. Names, in order: x[B,D], epsilon[B,S,Z], then each hidden
// layer's output as encoder.<i>.h[B,H], then mu, logvar (both [B,Z]), tril[B,Z(Z−1)/2] of a full
// covariance (what stands below the diagonal of its Cholesky factor, row by row), z[B,S,Z],
// decoder.<i>.h[B,S,H], what the outputs are ([B,S,…], see named_outputs in output_layer.h),
// recon[B], kl[B], loss[1] and, in layout order, grad.<parameter>. If S is above 1 or the draws'
// log q(z|x) − log p(z) is part of the objective, recon.draws[B,S] and log_ratio[B,S] stand before
// recon.
using Trace = std::vector<TracedTensor>;

// Posterior parameters, [rows, latent] each. exp(logvar/2) is the standard deviation or, of a full
// covariance, the diagonal of its Cholesky factor.
struct Posterior {
    std::vector<float> mu;
    std::vector<float> logvar;
    std::vector<float> tril;  // of a full covariance, [rows, latent·(latent − 1)/2]; see Trace
};

// Draws of z from the posteriors of examples, epsilon addressed by (seed, importance_epsilon, 0,
// example, draw).
struct DrawRequest {
    Split split = Split::test;
    std::span<const std::uint32_t> rows;  // examples of the split
    std::uint32_t draws = 1;              // of each, 1 to kMostDraws
    std::uint64_t seed = 0;
    bool wants_z = false;
};
inline constexpr std::uint32_t kMostDraws = std::uint32_t{1} << 24;  // a draw's address has 24 bits

// Draws first_draw … first_draw + draws of the request's rows first_row … first_row + rows.
struct DrawBlock {
    std::size_t first_row = 0;
    std::size_t rows = 0;
    std::uint32_t first_draw = 0;
    std::uint32_t draws = 0;
    std::vector<double> recon;      // −log p(x|z), [rows, draws]
    std::vector<double> log_ratio;  // log q(z|x) − log p(z), [rows, draws]
    std::vector<float> z;           // [rows, draws, latent] if asked for
};

// "fp32", "tf32", "bf16" or "auto", as in train.precision.
const char* name_of(Precision precision);
// "cublas", "epilogue", "fused" or "auto", as in train.plan.
const char* name_of(FusionPlan plan);
// As in model.activation.
const char* name_of(Activation activation);

// Calls that need data throw std::logic_error before set_data.
class Backend {
  public:
    virtual ~Backend() = default;

    // "cpu", "cpu-double" or "cuda".
    virtual std::string name() const = 0;
    // The machine it runs on, for people: "2 threads of AMD EPYC", "NVIDIA H100 80GB HBM3".
    virtual std::string device() const = 0;
    // Of its matrix products; never automatic. A double backend says fp32: it has no lower one.
    virtual Precision precision() const { return Precision::fp32; }
    // How it computes hidden layers, for people: "cublas", "epilogue", "fused", "epilogue in 2 of 6
    // products", "epilogue in 2, fused in 3 of 6 products". Empty where there is nothing to choose.
    virtual std::string plan() const { return {}; }
    // Whether values are kept in double (a dump is then F64).
    virtual bool is_double() const { return false; }

    // Bytes of a device's memory that it allocated at its start; 0 where there is none. The data
    // come on top.
    virtual std::size_t device_bytes() const { return 0; }

    // Whether train returns before its steps are done.
    virtual bool queues_steps() const { return false; }

    // Copies or keeps a reference to the splits; they outlive the backend. Throws RunError when
    // they do not fit, std::invalid_argument when their pixels are not the model's.
    virtual void set_data(const Splits& splits) = 0;
    // For people, after set_data: where the examples are and why, if that is not simply in the
    // memory that the backend computes in; else empty.
    virtual std::string data_note() const { return {}; }

    // Arenas of layout.arena_size elements. Throws std::invalid_argument on another size, and when
    // moments or average are not those of the configuration.
    virtual void set_state(const TrainingState& state) = 0;
    virtual TrainingState state() = 0;
    // The parameters in the backend's own precision.
    virtual std::vector<double> exact_parameters() = 0;
    // Their average likewise; empty if train.ema is 0.
    virtual std::vector<double> exact_ema() = 0;

    // Runs the request's steps; may return before they are done. Their losses are added to the
    // totals. A step whose gradient or loss is not finite is skipped, and counted: both are looked
    // at before anything is changed. Throws std::invalid_argument, before anything is done, unless
    // rows or part are in the training split, batch is at least 1, the schedule has one entry or
    // one for each step, and first_step is the state's step: noise and Adam's bias corrections
    // count the same steps.
    virtual void train(const TrainRequest& request) = 0;
    // Ends the running totals: steps of later calls count to the next ones, from zero. Waits for
    // nothing. At most kClosedTotals can be there that were not taken; std::logic_error else.
    virtual void close_totals() = 0;
    // The request's steps, taken and measured; at least kLeastProfiledSteps whole ones and nothing
    // else. Throws InputError where there is nothing to measure.
    virtual StepProfile profile(const TrainRequest& request);

    // Waits for the oldest totals that were closed, and no later step, and returns them; closes the
    // running ones first if there are none.
    virtual TrainTotals take_totals() = 0;

    // evaluate, draw, encode and decode use the average of the parameters if train.ema is not 0,
    // train and trace the parameters themselves.

    // recon, kl and loss over a whole split with the objective's number of draws an example,
    // addressed by (seed, evaluation_epsilon, 0, example, draw). beta weighs the loss only.
    virtual LossTotals evaluate(Split split, double beta) = 0;

    // Visits all draws of some rows, then of the next: each row is encoded once, and its draws come
    // in ascending order. Examples are as in evaluate. Throws std::invalid_argument for rows that
    // are not in the split and draws out of range.
    virtual void draw(const DrawRequest& request,
                      const std::function<void(const DrawBlock&)>& visit) = 0;

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
    // Any first_step will do; else as train, and std::invalid_argument unless there are 1 to batch
    // rows, given as such. A GPU that takes a batch in parts traces one part (train.part_rows()).
    virtual Trace trace(const TrainRequest& one_step) = 0;
};

// The CPU reference: float with vectorised loops and OpenBLAS, or double as the oracle.
std::unique_ptr<Backend> make_cpu_backend(const Config& config, const ParameterLayout& layout);
std::unique_ptr<Backend> make_cpu_double_backend(const Config& config,
                                                 const ParameterLayout& layout);

}  // namespace vae
