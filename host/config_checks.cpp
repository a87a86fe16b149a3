// check_config of host/settings.h: what lies between settings.
#include <fmt/format.h>

#include "host/error.h"
#include "host/output_layer.h"
#include "host/parameters.h"
#include "host/settings.h"

namespace vae {
namespace {

constexpr std::uint32_t kMostClasses = 1024;  // of a softmax: a warp holds one in its registers

// What of the objective's settings goes together.
void check_objective(const ObjectiveConfig& objective) {
    const bool is_score = objective.gradient == EncoderGradient::score;
    if (objective.gradient == EncoderGradient::dreg && objective.bound != Bound::iwae) {
        throw InputError(
            "objective.gradient = \"dreg\" is the gradient of IWAE; set objective.bound = "
            "\"iwae\" too");
    }
    if (is_score && objective.bound != Bound::elbo) {
        throw InputError(
            "objective.gradient = \"score\" is for the ELBO; set objective.bound = \"elbo\", or "
            "use the pathwise or dreg gradient");
    }
    if (!is_score && objective.baseline != Baseline::none) {
        throw InputError(
            "objective.baseline is for the score function; set objective.gradient = \"score\" "
            "too, or leave the baseline out");
    }
    if (objective.baseline == Baseline::leave_one_out && objective.samples < 2) {
        throw InputError(
            "objective.baseline = \"leave-one-out\" needs objective.samples of at least 2");
    }
    if (objective.uses_free_bits() && objective.uses_log_ratio()) {
        throw InputError(
            fmt::format("objective.free_bits = {} needs the ELBO's KL term in closed form; set "
                        "objective.bound = \"elbo\", objective.kl = \"analytic\" and model.prior = "
                        "\"normal\", or leave it out",
                        objective.free_bits));
    }
}

void check_prior(const ModelConfig& model) {
    if (model.prior == Prior::vamp && model.posterior == PosteriorCovariance::full) {
        throw InputError(
            "model.prior = \"vamp\" is made of posteriors with a diagonal covariance: use "
            "\"mixture\" or \"normal\" with model.posterior = \"full\"");
    }
    if (model.prior == Prior::vamp && encodes_log_counts(model.likelihood)) {
        throw InputError(
            "model.prior = \"vamp\" learns inputs of the encoder, and of counts the encoder sees "
            "the logarithms: use \"mixture\" or \"normal\" with the Poisson likelihood");
    }
}

void check_posterior(const Config& config) {
    const ModelConfig& model = config.model;
    if (model.posterior != PosteriorCovariance::full) return;
    if (model.latent > kMostFullLatent) {
        throw InputError(
            fmt::format("model.latent = {}: with model.posterior = \"full\" at most {}, as its "
                        "covariance has latent² entries; use \"diagonal\"",
                        model.latent, kMostFullLatent));
    }
    if (config.objective.uses_free_bits() &&
        config.objective.free_bits_per == FreeBitsPer::dimension) {
        throw InputError(
            "objective.free_bits_per = \"dimension\": with model.posterior = \"full\" the KL term "
            "is "
            "no sum over dimensions; set it to \"total\"");
    }
}

void check_likelihood(const Config& config) {
    const ModelConfig& model = config.model;
    const std::string likelihood = setting_text(config, "model.likelihood");
    if (model.sigma_min >= model.sigma_max) {
        throw InputError(fmt::format("model.sigma_min ({}) must be below model.sigma_max ({})",
                                     model.sigma_min, model.sigma_max));
    }
    if (model.variance != Variance::fixed && model.likelihood != Likelihood::gaussian) {
        throw InputError(
            fmt::format("model.variance = {} is for the Gaussian likelihood, and model.likelihood "
                        "is {}: leave one of them out",
                        setting_text(config, "model.variance"), likelihood));
    }
    if (model.variance == Variance::optimal &&
        (config.objective.bound != Bound::elbo ||
         config.objective.gradient == EncoderGradient::score)) {
        throw InputError(
            "model.variance = \"optimal\" is the best for the pathwise ELBO; with another "
            "objective use \"shared\", which is learned");
    }
    if (is_softmax(model.likelihood) && model.levels > kMostClasses) {
        throw InputError(fmt::format("model.levels = {}: with model.likelihood = {} at most {}",
                                     model.levels, likelihood, kMostClasses));
    }
    const bool may_be_binary =
        model.likelihood == Likelihood::bernoulli || model.likelihood == Likelihood::gaussian;
    if (config.data.binarize != Binarize::none && !may_be_binary) {
        throw InputError(
            fmt::format("data.binarize makes black and white pixels, and model.likelihood = {} is "
                        "for other values: leave one of them out",
                        likelihood));
    }
}

void check_micro_batches(const Config& config) {
    if (config.train.micro_batches == 1) return;
    if (const char* const key = whole_batch_setting(config); key != nullptr) {
        throw InputError(fmt::format(
            "train.micro_batches = {}: {} = {} looks at a whole batch at once; leave one of them "
            "out",
            config.train.micro_batches, key, setting_text(config, key)));
    }
    if (config.train.micro_batches > config.train.batch) {
        throw InputError(fmt::format(
            "train.micro_batches = {}: a batch of {} examples has no more parts than examples",
            config.train.micro_batches, config.train.batch));
    }
}

}  // namespace

void check_config(const Config& config) {
    const ModelConfig& model = config.model;
    if (model.logvar_min >= model.logvar_max) {
        throw InputError(fmt::format("model.logvar_min ({}) must be below model.logvar_max ({})",
                                     model.logvar_min, model.logvar_max));
    }
    // exp(logvar) and its inverse must stay finite in float.
    constexpr double kMostLogvar = 80;
    if (model.logvar_min < -kMostLogvar || model.logvar_max > kMostLogvar) {
        throw InputError(
            fmt::format("model.logvar_min and model.logvar_max must lie in "
                        "[-{0}, {0}], not {1} and {2}",
                        kMostLogvar, model.logvar_min, model.logvar_max));
    }
    check_objective(effective_objective(config));
    check_posterior(config);
    check_prior(model);
    check_likelihood(config);
    check_micro_batches(config);
    const TrainConfig& train = config.train;
    if (train.schedule == LearningRateSchedule::cosine &&
        train.learning_rate_final > train.learning_rate) {
        throw InputError(
            fmt::format("train.learning_rate_final ({}) must be at most train.learning_rate ({}): "
                        "a cosine falls",
                        train.learning_rate_final, train.learning_rate));
    }
    if (train.beta_schedule != BetaSchedule::constant && train.beta == 0) {
        throw InputError(
            fmt::format("train.beta_schedule = {}: beta has nothing to rise to, train.beta is 0",
                        setting_text(config, "train.beta_schedule")));
    }
}

}  // namespace vae
