// Everything that `vae evaluate` tells of a run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "host/importance.h"
#include "host/latent_statistics.h"
#include "host/loaded_run.h"
#include "host/row_blocks.h"

namespace vae {

struct EvaluationRequest {
    std::uint32_t importance_draws = 0;   // of each example; 0: no log p(x)
    std::size_t importance_examples = 0;  // the first ones; 0: all
    std::uint64_t seed = 0;               // of the draws but those of recon, kl and loss
};

struct Evaluation {
    LossTotals totals;
    LatentStatistics latent;
    std::optional<ImportanceEstimate> importance;
};

// The backend has the data.
Evaluation evaluate_run(const LoadedRun& run, const RunData& data,
                        const EvaluationRequest& request);

// For people, lines that each end; for programs, one object.
std::string evaluation_text(const Evaluation& evaluation, const LoadedRun& run,
                            const RunData& data);
nlohmann::ordered_json evaluation_json(const Evaluation& evaluation, const LoadedRun& run,
                                       const RunData& data);

}  // namespace vae
