#include "host/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "host/error.h"
#include "host/progress.h"

namespace vae {
namespace {

void require_finite(double value, const std::string& what) {
    if (std::isfinite(value)) return;
    throw RunError(
        fmt::format("{} is not finite: the data or the parameters have values that are "
                    "too large",
                    what));
}

}  // namespace

Evaluation evaluate_run(const LoadedRun& run, const RunData& data,
                        const EvaluationRequest& request) {
    const Config& config = run.checkpoint.config;
    const std::size_t examples = data.examples().size;
    Evaluation evaluation;
    evaluation.totals = run.backend->evaluate(data.split, config.train.beta);
    const std::string where = fmt::format("{}, {} split", data.source, data.split_name());
    require_finite(evaluation.totals.recon, where + ": recon");
    require_finite(evaluation.totals.kl, where + ": kl");
    require_finite(evaluation.totals.loss, where + ": the loss");
    evaluation.latent = latent_statistics(*run.backend, data.split, examples,
                                          run.checkpoint.layout().heads, request.seed);
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
    for (std::size_t i = 0; i < rows.size(); ++i) {
        require_finite(evaluation.importance->log_px[i],
                       fmt::format("{}, example {}: log p(x)", where, i));
    }
    return evaluation;
}

}  // namespace vae
