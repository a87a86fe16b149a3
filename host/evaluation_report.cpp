#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "host/evaluation.h"
#include "host/metrics.h"
#include "host/sample_statistics.h"
#include "host/spelling.h"

namespace vae {
namespace {

std::string row_text(const std::string& name, double value, const std::string& note = "") {
    return fmt::format("{:<20}{:>12.4f}{}{}\n", name, value, note.empty() ? "" : "  ", note);
}

// A standard error, where there is one: a single value has none.
std::string error_text(double error) {
    return std::isnan(error) ? "± –" : fmt::format("± {:.4f}", error);
}

std::string losses_text(const Evaluation& evaluation, double beta) {
    const LossMeans mean = means(evaluation.totals);
    return row_text("recon", mean.recon) + row_text("kl", mean.kl) + row_text("elbo", mean.elbo) +
           row_text("loss", mean.loss, fmt::format("beta {}", beta));
}

std::string importance_text(const ImportanceEstimate& estimate) {
    const std::string draws = counted(estimate.draws, "draw");
    std::string text =
        row_text("log p(x)", estimate.mean(),
                 fmt::format("{} over {}, {} by the draws; importance sampling, {} each",
                             error_text(estimate.error_over_examples()),
                             counted(estimate.log_px.size(), "example"),
                             error_text(estimate.monte_carlo_error()), draws));
    const auto& effective = estimate.effective_draws;
    text += row_text("effective draws", mean_of(effective),
                     fmt::format("mean over examples; least {:.1f}",
                                 *std::min_element(effective.begin(), effective.end())));
    for (const ImportanceBound& bound : estimate.bounds) {
        text += row_text(fmt::format("bound, k = {}", bound.samples), bound.mean);
    }
    return text;
}

std::string latent_text(const LatentStatistics& latent) {
    std::string text = fmt::format(
        "{:<20}{:>12}  of {} dimensions: variance of the posterior mean "
        "above {}\n",
        "active units", latent.active_units, latent.kl.size(), kActiveVariance);
    const std::string method =
        fmt::format("{}; aggregate posterior of {} at {}", error_text(latent.information.error),
                    counted(latent.examples, "example"), counted(latent.draws, "draw"));
    text += row_text(
        "I(x;z)", latent.information.value,
        method + fmt::format(", at most {:.4f}", std::log(static_cast<double>(latent.examples))));
    text += row_text("KL(q(z) || p(z))", latent.aggregate_kl.value,
                     error_text(latent.aggregate_kl.error) + "; likewise");
    std::vector<double> kl = latent.kl;
    std::sort(kl.begin(), kl.end(), std::greater<>());
    text += "KL(q(z_j|x) || N(0, 1)) by dimension, largest first:";
    for (std::size_t j = 0; j < kl.size(); ++j) {
        text += fmt::format("{}{:.3f}", j % 10 == 0 ? "\n    " : "  ", kl[j]);
    }
    return text + "\n";
}

nlohmann::ordered_json estimated_json(const Estimated& estimated) {
    return {{"value", estimated.value}, {"error", estimated.error}};
}

nlohmann::ordered_json importance_json(const ImportanceEstimate& estimate) {
    const auto& effective = estimate.effective_draws;
    nlohmann::ordered_json json = {
        {"value", estimate.mean()},
        {"method", "importance sampling from the posterior"},
        {"draws", estimate.draws},
        {"examples", estimate.log_px.size()},
        {"error_over_examples", estimate.error_over_examples()},
        {"monte_carlo_error", estimate.monte_carlo_error()},
        {"effective_draws",
         {{"mean", mean_of(effective)},
          {"least", *std::min_element(effective.begin(), effective.end())}}}};
    for (const ImportanceBound& bound : estimate.bounds) {
        json["bounds"].push_back({{"samples", bound.samples}, {"value", bound.mean}});
    }
    return json;
}

nlohmann::ordered_json latent_json(const LatentStatistics& latent) {
    nlohmann::ordered_json json;
    json["examples"] = latent.examples;
    json["active_units"] = latent.active_units;
    json["kl"] = latent.kl;
    json["mean_variance"] = latent.mean_variance;
    json["method"] = "aggregate posterior of the examples at draws from it";
    json["draws"] = latent.draws;
    json["information"] = estimated_json(latent.information);
    json["aggregate_kl"] = estimated_json(latent.aggregate_kl);
    return json;
}

}  // namespace

std::string evaluation_text(const Evaluation& evaluation, const LoadedRun& run,
                            const RunData& data) {
    const TrainConfig& train = run.checkpoint.config.train;
    const std::string examples = counted(evaluation.totals.examples, "example");
    const std::string what =
        data.is_all ? fmt::format("all {} of {}", examples, data.source)
                    : fmt::format("{}, {} split, {}", data.source, data.split_name(), examples);
    std::string text = fmt::format("backend: {}\n", run.note);
    const std::string note = parameters_note(train);
    if (!note.empty()) text += fmt::format("parameters: {}\n", note);
    text += fmt::format("{}, after step {}; means in nats per example; {}\n", what,
                        run.checkpoint.state.step, kl_note(run.checkpoint.config));
    text += losses_text(evaluation, train.beta);
    if (evaluation.importance) text += importance_text(*evaluation.importance);
    return text + latent_text(evaluation.latent);
}

nlohmann::ordered_json evaluation_json(const Evaluation& evaluation, const LoadedRun& run,
                                       const RunData& data) {
    const LossMeans mean = means(evaluation.totals);
    const TrainConfig& train = run.checkpoint.config.train;
    nlohmann::ordered_json json;
    json["step"] = run.checkpoint.state.step;
    json["data"] = data.source;
    json["split"] = data.split_name();
    json["examples"] = evaluation.totals.examples;
    json["recon"] = mean.recon;
    json["kl"] = mean.kl;
    json["elbo"] = mean.elbo;
    json["loss"] = mean.loss;
    json["beta"] = train.beta;
    json["kl_is"] = kl_is(run.checkpoint.config);
    if (evaluation.importance) json["log_px"] = importance_json(*evaluation.importance);
    json["latent"] = latent_json(evaluation.latent);
    json["backend"] = run.backend->name();
    json["parameters"] = train.ema > 0 ? "ema" : "raw";
    return json;
}

}  // namespace vae
