#include "host/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "host/setting_kinds.h"

namespace vae {

namespace {

constexpr std::int64_t kMostSamples = 1 << 16;
constexpr std::int64_t kMostLevels = 1 << 16;
constexpr std::int64_t kMostComponents = 1 << 16;

void add_data_settings(std::vector<Setting>& all) {
    all.push_back(text_setting(
        "data.source",
        "fashion-mnist, mnist:DIR, an IDX or .npy file, a folder of images, or synthetic:NAME",
        [](auto& c) -> auto& { return c.data.source; }));
    all.push_back(integer_setting(
        "data.validation", "how many of the last training examples are held out for validation", 0,
        std::numeric_limits<std::uint32_t>::max(),
        [](auto& c) -> auto& { return c.data.validation; }));
    all.push_back(choice_setting(
        "data.binarize", "how grey pixels become black or white (not, anew each step, or once)",
        Names<Binarize>{
            {Binarize::none, "none"}, {Binarize::dynamic, "dynamic"}, {Binarize::fixed, "fixed"}},
        [](auto& c) -> auto& { return c.data.binarize; }));
    all.push_back(choice_setting(
        "data.placement", "where a GPU has the examples; streamed: those that come next",
        Names<DataPlacement>{{DataPlacement::automatic, "auto"},
                             {DataPlacement::device, "device"},
                             {DataPlacement::streamed, "streamed"}},
        [](auto& c) -> auto& { return c.data.placement; }));
}

void add_likelihood_settings(std::vector<Setting>& all) {
    constexpr const char* kWanted = "a number from 1e-6 to 1e6";
    const auto is_sigma = [](double v) { return v >= 1e-6 && v <= 1e6; };
    all.push_back(choice_setting(
        "model.variance", "of the Gaussian likelihood",
        Names<Variance>{{Variance::fixed, "fixed"},
                        {Variance::shared, "shared"},
                        {Variance::pixel, "pixel"},
                        {Variance::optimal, "optimal"}},
        [](auto& c) -> auto& { return c.model.variance; }));
    all.push_back(number_setting(
        "model.sigma", "standard deviation of the Gaussian likelihood with fixed variance", kWanted,
        is_sigma, [](auto& c) -> auto& { return c.model.sigma; }));
    all.push_back(number_setting(
        "model.sigma_min", "least learned standard deviation, or scale of the logistic likelihood",
        kWanted, is_sigma, [](auto& c) -> auto& { return c.model.sigma_min; }));
    all.push_back(number_setting(
        "model.sigma_max", "and the most", kWanted, is_sigma,
        [](auto& c) -> auto& { return c.model.sigma_max; }));
    all.push_back(integer_setting(
        "model.levels", "values that a discrete pixel can have, or width of a one-hot group", 2,
        kMostLevels, [](auto& c) -> auto& { return c.model.levels; }));
}

void add_model_settings(std::vector<Setting>& all) {
    const auto any = [](double) { return true; };
    all.push_back(widths_setting(
        "model.encoder_hidden", "widths of the encoder's hidden layers",
        [](auto& c) -> auto& { return c.model.encoder_hidden; }));
    all.push_back(integer_setting(
        "model.latent", "dimensions of the latent code z", 1, 1 << 16,
        [](auto& c) -> auto& { return c.model.latent; }));
    all.push_back(widths_setting(
        "model.decoder_hidden", "widths of the decoder's; if absent, the encoder's in reverse",
        [](auto& c) -> auto& { return c.model.decoder_hidden; }));
    all.push_back(choice_setting(
        "model.activation", "of the hidden layers; gated: (W x + b) times sigmoid(V x + c)",
        Names<Activation>{{Activation::relu, "relu"},
                          {Activation::tanh, "tanh"},
                          {Activation::softplus, "softplus"},
                          {Activation::gelu, "gelu"},
                          {Activation::silu, "silu"},
                          {Activation::gated, "gated"}},
        [](auto& c) -> auto& { return c.model.activation; }));
    all.push_back(choice_setting(
        "model.likelihood", "p(x|z)",
        Names<Likelihood>{{Likelihood::bernoulli, "bernoulli"},
                          {Likelihood::gaussian, "gaussian"},
                          {Likelihood::logistic, "logistic"},
                          {Likelihood::categorical, "categorical"},
                          {Likelihood::onehot, "onehot"},
                          {Likelihood::poisson, "poisson"}},
        [](auto& c) -> auto& { return c.model.likelihood; }));
    add_likelihood_settings(all);
    all.push_back(choice_setting(
        "model.posterior", "covariance of q(z|x)",
        Names<PosteriorCovariance>{{PosteriorCovariance::diagonal, "diagonal"},
                                   {PosteriorCovariance::full, "full"}},
        [](auto& c) -> auto& { return c.model.posterior; }));
    all.push_back(choice_setting(
        "model.prior", "p(z): N(0, I), or a learned mixture of Gaussians or of posteriors",
        Names<Prior>{{Prior::normal, "normal"}, {Prior::mixture, "mixture"}, {Prior::vamp, "vamp"}},
        [](auto& c) -> auto& { return c.model.prior; }));
    all.push_back(integer_setting(
        "model.prior_components", "of a learned prior: Gaussians, or pseudo-inputs", 1,
        kMostComponents, [](auto& c) -> auto& { return c.model.prior_components; }));
    all.push_back(number_setting(
        "model.logvar_min", "the encoder's log-variance is clamped from below to this",
        "a finite number", any, [](auto& c) -> auto& { return c.model.logvar_min; }));
    all.push_back(number_setting(
        "model.logvar_max", "and from above to this", "a finite number", any,
        [](auto& c) -> auto& { return c.model.logvar_max; }));
    all.push_back(choice_setting(
        "model.initialization", "how weights and biases start",
        Names<Initialization>{{Initialization::pytorch, "pytorch"},
                              {Initialization::glorot, "glorot"},
                              {Initialization::he, "he"}},
        [](auto& c) -> auto& { return c.model.initialization; }));
    all.push_back(truth_setting(
        "model.data_bias", "output and first biases start from the mean of the training examples",
        [](auto& c) -> auto& { return c.model.data_bias; }));
}

void add_objective_settings(std::vector<Setting>& all) {
    all.push_back(choice_setting(
        "objective.bound", "of log p(x), which is maximised",
        Names<Bound>{{Bound::elbo, "elbo"}, {Bound::iwae, "iwae"}},
        [](auto& c) -> auto& { return c.objective.bound; }));
    all.push_back(choice_setting(
        "objective.kl", "the ELBO's KL term: in closed form where it has one, or from samples of z",
        Names<KlTerm>{{KlTerm::analytic, "analytic"}, {KlTerm::sampled, "sampled"}},
        [](auto& c) -> auto& { return c.objective.kl; }));
    all.push_back(integer_setting(
        "objective.samples", "of z for each example and step: L of the ELBO, k of IWAE", 1,
        kMostSamples, [](auto& c) -> auto& { return c.objective.samples; }));
    all.push_back(choice_setting(
        "objective.gradient", "how the gradient reaches the encoder",
        Names<EncoderGradient>{{EncoderGradient::pathwise, "pathwise"},
                               {EncoderGradient::dreg, "dreg"},
                               {EncoderGradient::score, "score"}},
        [](auto& c) -> auto& { return c.objective.gradient; }));
    all.push_back(choice_setting(
        "objective.baseline", "what is subtracted from the score function's signal",
        Names<Baseline>{{Baseline::none, "none"},
                        {Baseline::leave_one_out, "leave-one-out"},
                        {Baseline::running_mean, "running-mean"}},
        [](auto& c) -> auto& { return c.objective.baseline; }));
    all.push_back(number_setting(
        "objective.free_bits", "nats of the KL term that cost nothing; 0: none",
        "a number of at least 0", [](double v) { return v >= 0; },
        [](auto& c) -> auto& { return c.objective.free_bits; }));
    all.push_back(choice_setting(
        "objective.free_bits_per", "whether each latent dimension has that many, or all together",
        Names<FreeBitsPer>{{FreeBitsPer::dimension, "dimension"}, {FreeBitsPer::total, "total"}},
        [](auto& c) -> auto& { return c.objective.free_bits_per; }));
}

constexpr std::int64_t kMostSteps = std::numeric_limits<std::uint32_t>::max();
constexpr std::int64_t kMostEpochs = 1'000'000;
constexpr std::int64_t kMostGraphSteps = 1024;

bool is_part(double v) {
    return v > 0 && v <= 1;
}

void add_learning_rate_schedule(std::vector<Setting>& all) {
    all.push_back(choice_setting(
        "train.schedule", "of the learning rate",
        Names<LearningRateSchedule>{{LearningRateSchedule::constant, "constant"},
                                    {LearningRateSchedule::step, "step"},
                                    {LearningRateSchedule::cosine, "cosine"},
                                    {LearningRateSchedule::burda, "burda"}},
        [](auto& c) -> auto& { return c.train.schedule; }));
    all.push_back(number_setting(
        "train.schedule_factor", "of step: what multiplies the learning rate",
        "a number above 0 and at most 1", is_part,
        [](auto& c) -> auto& { return c.train.schedule_factor; }));
    all.push_back(integer_setting(
        "train.schedule_epochs", "of step: every so many epochs", 1, kMostEpochs,
        [](auto& c) -> auto& { return c.train.schedule_epochs; }));
    all.push_back(number_setting(
        "train.learning_rate_final", "of cosine: the learning rate at the run's end",
        "a number of at least 0", [](double v) { return v >= 0; },
        [](auto& c) -> auto& { return c.train.learning_rate_final; }));
    all.push_back(integer_setting(
        "train.warmup_steps", "steps in which the learning rate rises from 0", 0, kMostSteps,
        [](auto& c) -> auto& { return c.train.warmup_steps; }));
}

void add_beta_schedule(std::vector<Setting>& all) {
    all.push_back(choice_setting(
        "train.beta_schedule", "whether beta rises from 0 to train.beta, once or in cycles",
        Names<BetaSchedule>{{BetaSchedule::constant, "constant"},
                            {BetaSchedule::linear, "linear"},
                            {BetaSchedule::cyclic, "cyclic"}},
        [](auto& c) -> auto& { return c.train.beta_schedule; }));
    all.push_back(integer_setting(
        "train.beta_epochs", "epochs of a linear rise of beta, or of one cycle", 1, kMostEpochs,
        [](auto& c) -> auto& { return c.train.beta_epochs; }));
    all.push_back(number_setting(
        "train.beta_ramp", "of cyclic: the part of a cycle in which beta rises",
        "a number above 0 and at most 1", is_part,
        [](auto& c) -> auto& { return c.train.beta_ramp; }));
}

void add_optimizer_settings(std::vector<Setting>& all) {
    const auto decay = [](double v) { return v >= 0 && v < 1; };
    const auto not_negative = [](double v) { return v >= 0; };
    const auto not_zero_in_float = [](double v) { return v >= 1e-30; };
    all.push_back(choice_setting(
        "train.optimizer", "how parameters move against their gradients",
        Names<Optimizer>{{Optimizer::adam, "adam"},
                         {Optimizer::adamw, "adamw"},
                         {Optimizer::adagrad, "adagrad"},
                         {Optimizer::sgd, "sgd"}},
        [](auto& c) -> auto& { return c.train.optimizer; }));
    all.push_back(number_setting(
        "train.weight_decay",
        "pull of all parameters to zero; for adamw apart from the gradient, else a part of it",
        "a number of at least 0", not_negative,
        [](auto& c) -> auto& { return c.train.weight_decay; }));
    all.push_back(number_setting(
        "train.momentum", "decay of SGD's sum of gradients", "a number from 0 to below 1", decay,
        [](auto& c) -> auto& { return c.train.momentum; }));
    all.push_back(number_setting(
        "train.adam_beta1", "decay of Adam's mean of gradients", "a number from 0 to below 1",
        decay, [](auto& c) -> auto& { return c.train.adam_beta1; }));
    all.push_back(number_setting(
        "train.adam_beta2", "decay of Adam's mean of squared gradients",
        "a number from 0 to below 1", decay, [](auto& c) -> auto& { return c.train.adam_beta2; }));
    all.push_back(number_setting(
        "train.adam_epsilon", "keeps Adam's division finite", "a number of at least 1e-30",
        not_zero_in_float, [](auto& c) -> auto& { return c.train.adam_epsilon; }));
    all.push_back(number_setting(
        "train.adagrad_epsilon", "keeps Adagrad's division finite", "a number of at least 1e-30",
        not_zero_in_float, [](auto& c) -> auto& { return c.train.adagrad_epsilon; }));
    all.push_back(truth_setting(
        "train.normalize_gradients", "whether each tensor's gradient is scaled to norm 1",
        [](auto& c) -> auto& { return c.train.normalize_gradients; }));
    all.push_back(number_setting(
        "train.clip_norm", "most norm of the whole gradient, after normalising; 0: no limit",
        "a number of at least 0", not_negative,
        [](auto& c) -> auto& { return c.train.clip_norm; }));
    all.push_back(number_setting(
        "train.ema", "decay of the parameters' moving average, which is then evaluated; 0: none",
        "a number from 0 to below 1", decay, [](auto& c) -> auto& { return c.train.ema; }));
}

void add_train_settings(std::vector<Setting>& all) {
    all.push_back(integer_setting(
        "train.seed", "of all randomness: the same seed, the same run", 0,
        std::numeric_limits<std::int64_t>::max(), [](auto& c) -> auto& { return c.train.seed; }));
    all.push_back(integer_setting(
        "train.epochs", "passes over the training examples", 1, kMostEpochs,
        [](auto& c) -> auto& { return c.train.epochs; }));
    all.push_back(integer_setting(
        "train.steps", "optimiser steps in all; 0: as many as the epochs take", 0, kMostSteps,
        [](auto& c) -> auto& { return c.train.steps; }));
    all.push_back(integer_setting(
        "train.batch", "examples a step", 1, kMostWidth,
        [](auto& c) -> auto& { return c.train.batch; }));
    all.push_back(choice_setting(
        "train.precision", "of the GPU's matrix products; auto: tf32 where the GPU has it",
        Names<Precision>{{Precision::automatic, "auto"},
                         {Precision::fp32, "fp32"},
                         {Precision::tf32, "tf32"},
                         {Precision::bf16, "bf16"}},
        [](auto& c) -> auto& { return c.train.precision; }));
    all.push_back(choice_setting(
        "train.plan",
        "of the GPU's hidden layers: cublas has our kernels between matrix products, epilogue has "
        "ReLU inside them, fused any activation inside products of ours, auto what vae devices "
        "--tune found the fastest, else what takes fewer kernels",
        Names<FusionPlan>{{FusionPlan::automatic, "auto"},
                          {FusionPlan::cublas, "cublas"},
                          {FusionPlan::epilogue, "epilogue"},
                          {FusionPlan::fused, "fused"}},
        [](auto& c) -> auto& { return c.train.plan; }));
    all.push_back(number_setting(
        "train.learning_rate", "the optimiser's step size", "a number above 0",
        [](double v) { return v > 0; }, [](auto& c) -> auto& { return c.train.learning_rate; }));
    add_learning_rate_schedule(all);
    add_optimizer_settings(all);
    all.push_back(number_setting(
        "train.beta", "weight of the KL term in the loss", "a number of at least 0",
        [](double v) { return v >= 0; }, [](auto& c) -> auto& { return c.train.beta; }));
    add_beta_schedule(all);
    all.push_back(integer_setting(
        "train.micro_batches", "parts that a GPU takes a batch in, one after the other", 1,
        kMostMicroBatches, [](auto& c) -> auto& { return c.train.micro_batches; }));
    all.push_back(integer_setting(
        "train.graph_steps", "steps that a GPU takes at one launch; 0: as many as are good", 0,
        kMostGraphSteps, [](auto& c) -> auto& { return c.train.graph_steps; }));
    all.push_back(integer_setting(
        "train.patience", "epochs without a better held-out elbo that end the run; 0: none do", 0,
        kMostEpochs, [](auto& c) -> auto& { return c.train.patience; }));
}

}  // namespace

std::string quote(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
        } else {
            out += c;
        }
    }
    return out + '"';
}

const std::vector<Setting>& settings() {
    static const std::vector<Setting> all = [] {
        std::vector<Setting> list;
        add_data_settings(list);
        add_model_settings(list);
        add_objective_settings(list);
        add_train_settings(list);
        return list;
    }();
    return all;
}

const Setting* find_setting(std::string_view key) {
    const auto& all = settings();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Setting& s) { return s.key == key; });
    return found == all.end() ? nullptr : &*found;
}

std::vector<std::string> differing_settings(const Config& a, const Config& b) {
    std::vector<std::string> keys;
    for (const Setting& setting : settings()) {
        if (setting.print(a) != setting.print(b)) keys.push_back(setting.key);
    }
    return keys;
}

std::string setting_text(const Config& config, std::string_view key) {
    const Setting* setting = find_setting(key);
    if (setting == nullptr) throw std::out_of_range(std::string(key));
    return setting->print(config);
}

}  // namespace vae
