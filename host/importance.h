// log p(x) by importance sampling from the posterior: the log mean of the weights
// w_s = p(x|z_s) p(z_s) / q(z_s|x) of K draws z_s ~ q(z|x) (Rezende et al. 2014; Burda
// et al. 2016). Its expectation is the importance-weighted bound L_K <= log p(x), which rises with
// K. Sums are streamed: nothing grows with K.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "host/backend.h"
#include "host/row_blocks.h"

namespace vae {

// The logarithm of a sum of terms that are given by their logarithms, in double. −inf adds nothing;
// NaN gives NaN.
class LogSum {
  public:
    void add(double log_term);
    double log() const;

  private:
    double largest_ = -std::numeric_limits<double>::infinity();
    double sum_ = 0;  // of exp(term − largest)
};

// What the draws of one example say, as they come.
class ImportanceSum {
  public:
    // For `draws` >= 1 of them.
    explicit ImportanceSum(std::uint32_t draws);

    void add(double log_weight);

    // log (1/K) Σ w, nats.
    double log_px() const;
    // Its Monte Carlo standard error by the delta method: the relative standard error of the mean
    // weight. NaN of a single draw.
    double error() const;
    // Effective sample size (Σ w)² / Σ w² (Kong 1992).
    double effective_draws() const;
    // L_k for each of bound_samples(draws), as the mean over disjoint groups of k draws: unbiased.
    std::vector<double> bounds() const;

  private:
    // Draws in groups, each of some groups of the level below.
    struct Level {
        std::uint32_t size = 1;
        LogSum open;             // of the group that is not full
        std::uint32_t held = 0;  // draws in it
        double total = 0;        // of the full groups' log means
        std::uint64_t groups = 0;
    };

    std::uint32_t draws_;
    double largest_ = -std::numeric_limits<double>::infinity();
    double sum_ = 0;      // of w / exp(largest)
    double squares_ = 0;  // of its square
    std::vector<Level> levels_;
};

// 1, 5, 10, 50, 100, 500, … up to `draws`.
std::vector<std::uint32_t> bound_samples(std::uint32_t draws);

struct ImportanceBound {
    std::uint32_t samples = 0;
    double mean = 0;  // over examples, nats
};

struct ImportanceEstimate {
    std::uint32_t draws = 0;
    std::vector<double> log_px;           // of each example, nats
    std::vector<double> error;            // its Monte Carlo standard error
    std::vector<double> effective_draws;  // of each example
    std::vector<ImportanceBound> bounds;

    double mean() const;
    // Standard error of the mean over examples, as a sample of all that there could be.
    double error_over_examples() const;
    // Standard error of the mean that the draws alone make.
    double monte_carlo_error() const;
};

// Over the request's rows. on_draws: told how many draws are done, over all rows.
ImportanceEstimate importance_sampling(Backend& backend, const DrawRequest& request,
                                       const RowsDone& on_draws = {});

}  // namespace vae
