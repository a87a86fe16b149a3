#include "host/gradient_variance.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "host/error.h"
#include "host/sample_statistics.h"
#include "host/settings.h"

namespace vae {
namespace {

const TracedTensor& tensor_of(const Trace& trace, const std::string& name) {
    for (const TracedTensor& tensor : trace) {
        if (tensor.name == name) return tensor;
    }
    throw std::logic_error("gradient_scatter: the trace has no " + name);
}

// The score function's mean signal, as host/cpu/objective.h defines it.
double mean_signal(const Trace& trace, const ObjectiveConfig& objective, double beta) {
    const double recon = mean_of(tensor_of(trace, "recon").values);
    return objective.uses_log_ratio() ? recon + beta * mean_of(tensor_of(trace, "kl").values)
                                      : recon;
}

// The gradients of the encoder's parameters, or of all others, end to end.
std::vector<double> gradients_of(const Trace& trace, bool of_encoder) {
    const std::string prefix = "grad.";
    std::vector<double> all;
    for (const TracedTensor& tensor : trace) {
        if (!tensor.name.starts_with(prefix)) continue;
        if (tensor.name.starts_with(prefix + "encoder.") != of_encoder) continue;
        all.insert(all.end(), tensor.values.begin(), tensor.values.end());
    }
    return all;
}

// A setting's word without its quotes.
std::string word_of(const Config& config, const std::string& key) {
    const std::string text = setting_text(config, key);
    return text.substr(1, text.size() - 2);
}

std::string signal_text(const Scatter& scatter) {
    const double ratio = scatter.signal_to_noise();
    return std::isnan(ratio) ? "–" : fmt::format("{:.3f}", ratio);
}

nlohmann::ordered_json json_of(const Scatter& scatter) {
    return {{"variance", scatter.variance},
            {"squared_mean", scatter.squared_mean},
            {"signal_to_noise", scatter.signal_to_noise()}};
}

}  // namespace

std::vector<Estimator> gradient_estimators(const Config& config, std::uint32_t samples) {
    using enum EncoderGradient;
    std::vector<Estimator> candidates = {
        {"pathwise, KL in closed form", {Bound::elbo, KlTerm::analytic, 1}},
        {"pathwise, KL sampled", {Bound::elbo, KlTerm::sampled, 1}},
        {"pathwise, KL in closed form", {Bound::elbo, KlTerm::analytic, samples}},
        {"pathwise, KL sampled", {Bound::elbo, KlTerm::sampled, samples}},
        {"IWAE", {Bound::iwae, KlTerm::sampled, samples}},
        {"IWAE, doubly reparameterised", {Bound::iwae, KlTerm::sampled, samples, dreg}},
        {"score function", {Bound::elbo, KlTerm::analytic, samples, score}},
        {"score function, running mean",
         {Bound::elbo, KlTerm::analytic, samples, score, Baseline::running_mean}},
        {"score function, leave one out",
         {Bound::elbo, KlTerm::analytic, samples, score, Baseline::leave_one_out}}};
    std::vector<Estimator> allowed;
    for (Estimator& estimator : candidates) {
        estimator.objective.free_bits = config.objective.free_bits;
        estimator.objective.free_bits_per = config.objective.free_bits_per;
        Config with = config;
        with.objective = estimator.objective;
        try {
            check_config(with);
        } catch (const InputError&) {
            continue;
        }
        // One whose KL term has no closed form is the next.
        const bool is_pathwise_elbo =
            estimator.objective.bound == Bound::elbo && estimator.objective.gradient == pathwise;
        if (is_pathwise_elbo && effective_objective(with).kl != estimator.objective.kl) continue;
        estimator.objective = effective_objective(with);
        allowed.push_back(estimator);
    }
    return allowed;
}

double Scatter::signal_to_noise() const {
    return std::sqrt(squared_mean / variance);
}

void VectorMoments::add(std::span<const double> values) {
    if (count_ == 0) mean_.assign(values.size(), 0.0);
    if (values.size() != mean_.size()) {
        throw std::invalid_argument("VectorMoments: vectors of different lengths");
    }
    ++count_;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const double delta = values[i] - mean_[i];
        mean_[i] += delta / static_cast<double>(count_);
        squares_ += delta * (values[i] - mean_[i]);
    }
}

Scatter VectorMoments::scatter() const {
    const auto count = static_cast<double>(count_);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    Scatter result;
    result.variance = count_ < 2 ? nan : squares_ / (count - 1);
    for (const double mean : mean_) result.squared_mean += mean * mean;
    // The mean's own variance is in its square.
    result.squared_mean -= result.variance / count;
    return result;
}

GradientScatter gradient_scatter(Backend& backend, const Estimator& estimator,
                                 const TrainingState& state, std::span<const std::uint32_t> rows,
                                 double beta, std::uint32_t repeats, const RowsDone& on_repeat) {
    TrainRequest request;
    request.rows = rows;
    request.batch = static_cast<std::uint32_t>(rows.size());
    request.schedule = {{0, beta}};
    TrainingState at = state;
    backend.set_state(at);
    if (estimator.objective.baseline == Baseline::running_mean) {
        at.running_mean = mean_signal(backend.trace(request), estimator.objective, beta);
        backend.set_state(at);
    }
    VectorMoments encoder;
    VectorMoments decoder;
    for (std::uint32_t repeat = 0; repeat < repeats; ++repeat) {
        request.first_step = repeat;
        const Trace trace = backend.trace(request);
        encoder.add(gradients_of(trace, true));
        decoder.add(gradients_of(trace, false));
        if (on_repeat) on_repeat(repeat + 1);
    }
    return {estimator, encoder.scatter(), decoder.scatter()};
}

std::string scatter_table(const std::vector<GradientScatter>& all) {
    std::string text = fmt::format("{:<30}  {:>5}  {:>12}  {:>8}  {:>12}  {:>8}\n", "estimator",
                                   "draws", "encoder", "signal", "decoder", "signal") +
                       fmt::format("{:<30}  {:>5}  {:>12}  {:>8}  {:>12}  {:>8}\n", "", "",
                                   "variance", "to noise", "variance", "to noise");
    for (const GradientScatter& row : all) {
        text +=
            fmt::format("{:<30}  {:>5}  {:>12.4e}  {:>8}  {:>12.4e}  {:>8}\n", row.estimator.name,
                        row.estimator.objective.samples, row.encoder.variance,
                        signal_text(row.encoder), row.decoder.variance, signal_text(row.decoder));
    }
    return text;
}

nlohmann::ordered_json scatter_json(const std::vector<GradientScatter>& all) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const GradientScatter& row : all) {
        const ObjectiveConfig& objective = row.estimator.objective;
        Config config;
        config.objective = objective;
        rows.push_back({{"estimator", row.estimator.name},
                        {"bound", word_of(config, "objective.bound")},
                        {"kl", word_of(config, "objective.kl")},
                        {"gradient", word_of(config, "objective.gradient")},
                        {"baseline", word_of(config, "objective.baseline")},
                        {"samples", objective.samples},
                        {"encoder", json_of(row.encoder)},
                        {"decoder", json_of(row.decoder)}});
    }
    return rows;
}

}  // namespace vae
