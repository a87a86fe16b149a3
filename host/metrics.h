// metrics.jsonl: one JSON object a line, whole as soon as it is there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "host/backend.h"

namespace vae {

// A train row sums up the epoch so far; another split's row is an evaluation after that step.
struct MetricsRow {
    std::uint64_t step = 0;   // optimiser steps done
    std::uint32_t epoch = 0;  // from 1
    Split split = Split::train;
    LossTotals totals;
    double beta = 1;
    double seconds = 0;         // that the training or the evaluation took, nothing else
    std::uint64_t skipped = 0;  // steps of the epoch that were not taken; of train rows alone
    std::string kl_is;          // as kl_is() says
};

// step, epoch, split, recon, kl, elbo, loss, beta (means over examples, in nats), kl_is,
// examples_per_second, examples, seconds and, of the train split, skipped.
std::string to_json_line(const MetricsRow& row);

// What kl is: "closed form" or "estimated" from the draws of z.
std::string kl_is(const Config& config);
// The same for people: "kl is in closed form" or "kl is estimated from draws".
std::string kl_note(const Config& config);

// recon, kl, elbo and loss as means over examples.
struct LossMeans {
    double recon = 0;
    double kl = 0;
    double elbo = 0;
    double loss = 0;
};
LossMeans means(const LossTotals& totals);

// Appends rows, each flushed.
class MetricsLog {
  public:
    // Throws RunError when the file cannot be opened.
    explicit MetricsLog(const std::filesystem::path& path);
    // Throws RunError when it cannot be written.
    void write(const MetricsRow& row);

  private:
    std::string path_;
    std::ofstream out_;
};

// The lines that are whole rows of at most this step. A missing file has none.
std::vector<std::string> metrics_lines_until(const std::filesystem::path& path, std::uint64_t step);

}  // namespace vae
