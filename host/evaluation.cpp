#include "host/evaluation.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "host/progress.h"

namespace vae {

Evaluation evaluate_run(const LoadedRun& run, const RunData& data,
                        const EvaluationRequest& request) {
    const Config& config = run.checkpoint.config;
    const std::size_t examples = data.examples().size;
    Evaluation evaluation;
    evaluation.totals = run.backend->evaluate(data.split, config.train.beta);
    evaluation.latent =
        latent_statistics(*run.backend, data.split, examples, config.model.latent, request.seed);
    if (request.importance_draws == 0) return evaluation;
    std::vector<std::uint32_t> rows(request.importance_examples == 0
                                        ? examples
                                        : std::min(request.importance_examples, examples));
    std::iota(rows.begin(), rows.end(), 0U);
    DrawRequest draws;
    draws.split = data.split;
    draws.rows = rows;
    draws.draws = request.importance_draws;
    draws.seed = request.seed;
    Progress progress = Progress::standard_error();
    evaluation.importance = importance_sampling(
        *run.backend, draws,
        ShownWork(progress, "log p(x)", rows.size() * std::uint64_t{draws.draws}, "draws"));
    return evaluation;
}

}  // namespace vae
