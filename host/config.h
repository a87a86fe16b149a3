// Every setting of a run, with its default. config_file.h reads and writes them as TOML.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vae {

// gelu is the exact one (erf). gated is no function of one number: its layers have two linear maps.
enum class Activation { relu, tanh, softplus, gelu, silu, gated };
enum class Likelihood { bernoulli, gaussian, logistic, categorical, onehot, poisson };
// Of the Gaussian likelihood: sigma as set; one learned; the decoder's second output for each
// pixel; the best for the batch, in closed form.
enum class Variance { fixed, shared, pixel, optimal };
// p(z): N(0, I); a mixture of Gaussians whose components are learned; or the VampPrior (Tomczak &
// Welling 2018), a mixture of the posteriors of learned pseudo-inputs.
enum class Prior { normal, mixture, vamp };
// The covariance of the Gaussian q(z|x).
enum class PosteriorCovariance { diagonal, full };
enum class Initialization { pytorch, glorot, he };
enum class Optimizer { adam, adamw, adagrad, sgd };
// How grey pixels in [0,1] become the data: as they are; drawn anew each step (evaluation splits
// are drawn once); drawn once.
enum class Binarize { none, dynamic, fixed };
// Where a GPU has the examples: all of them in its memory, those of a while, or the first where
// they fit. The CPU leaves them where they are.
enum class DataPlacement { automatic, device, streamed };

// The lower bound of log p(x) that is maximised: the ELBO, or that of importance weighting (Burda
// et al. 2016).
enum class Bound { elbo, iwae };
// The KL term of the ELBO: in closed form where there is one (the SGVB estimator B of Kingma &
// Welling 2014), or from the samples as log q(z|x) − log p(z) (their estimator A).
enum class KlTerm { analytic, sampled };
// How the bound's gradient reaches the encoder: through the samples of z; doubly reparameterised
// (DReG, Tucker et al. 2019); or by the score function (REINFORCE, Ranganath et al. 2014).
enum class EncoderGradient { pathwise, dreg, score };
// What is subtracted from each sample's signal under the score function: nothing, the mean of the
// example's other samples, or a running mean over the steps before.
enum class Baseline { none, leave_one_out, running_mean };
// Of what free bits are a floor: the KL of each latent dimension, or all of it.
enum class FreeBitsPer { dimension, total };

// What the GPU's matrix products compute with. automatic: tf32 where the GPU has it (compute
// capability 8.0), else fp32. The CPU computes in fp32.
enum class Precision { automatic, fp32, tf32, bf16 };
// How the GPU computes a hidden layer: cublas is plain products with our own kernels between them,
// epilogue has the ReLU and its backward in the products, fused has any activation in products of
// our own. automatic: what was measured and kept for such steps (vae devices --tune), else the
// epilogues that cost no kernel of their own, which are counted when a run starts.
enum class FusionPlan { automatic, cublas, epilogue, fused };

// How the learning rate and beta go on from step to step; host/schedule.h.
enum class LearningRateSchedule { constant, step, cosine, burda };
enum class BetaSchedule { constant, linear, cyclic };

struct DataConfig {
    std::string source = "fashion-mnist";
    std::uint32_t validation = 0;  // how many of the last training examples are held out
    Binarize binarize = Binarize::none;
    DataPlacement placement = DataPlacement::automatic;
};

struct ModelConfig {
    std::vector<std::uint32_t> encoder_hidden = {400};
    std::uint32_t latent = 20;
    std::vector<std::uint32_t> decoder_hidden = {400};
    Activation activation = Activation::relu;
    Likelihood likelihood = Likelihood::bernoulli;
    Variance variance = Variance::fixed;
    double sigma = 0.7071067811865476;  // of the Gaussian likelihood with a fixed variance
    double sigma_min = 0.01;            // bounds of what the likelihood learns: a sigma, or the
    double sigma_max = 10.0;            // scale of the logistic likelihood
    std::uint32_t levels = 256;         // values of a discrete pixel; width of a one-hot group
    PosteriorCovariance posterior = PosteriorCovariance::diagonal;
    double logvar_min = -10.0;  // the encoder's log-variance is clamped to this range, and
    double logvar_max = 10.0;   // those of a learned prior's components
    Prior prior = Prior::normal;
    std::uint32_t prior_components = 100;  // of a learned prior
    Initialization initialization = Initialization::pytorch;
    bool data_bias = false;  // biases start from the data's mean; host/data_bias.h
};

struct ObjectiveConfig {
    Bound bound = Bound::elbo;
    KlTerm kl = KlTerm::analytic;
    std::uint32_t samples = 1;  // of z for each example and step: L of the ELBO, k of IWAE
    EncoderGradient gradient = EncoderGradient::pathwise;
    Baseline baseline = Baseline::none;  // of the score function
    double free_bits = 0;                // nats below which the KL term costs nothing; 0: off
    FreeBitsPer free_bits_per = FreeBitsPer::dimension;

    // Whether log q(z|x) − log p(z) of the draws is part of the loss.
    bool uses_log_ratio() const { return bound == Bound::iwae || kl == KlTerm::sampled; }
    bool uses_free_bits() const { return free_bits > 0; }
};

inline constexpr std::uint32_t kMostMicroBatches = 1U << 16;

struct TrainConfig {
    std::uint64_t seed = 1;
    std::uint32_t epochs = 10;
    std::uint64_t steps = 0;  // 0: as many as the epochs take; else this many and epochs is unused
    std::uint32_t batch = 128;
    Precision precision = Precision::automatic;
    FusionPlan plan = FusionPlan::automatic;
    double learning_rate = 1e-3;
    LearningRateSchedule schedule = LearningRateSchedule::constant;
    double schedule_factor = 0.1;        // of step: multiplies the learning rate …
    std::uint32_t schedule_epochs = 10;  // … every so many epochs
    double learning_rate_final = 0;      // of cosine: where it ends
    std::uint32_t warmup_steps = 0;      // the learning rate rises linearly in these
    Optimizer optimizer = Optimizer::adam;
    double weight_decay = 0;  // decoupled for AdamW, else added to the gradient as weight_decay·p
    double momentum = 0.9;    // of SGD
    double adam_beta1 = 0.9;
    double adam_beta2 = 0.999;
    double adam_epsilon = 1e-8;
    double adagrad_epsilon = 1e-10;
    bool normalize_gradients = false;  // each tensor's gradient to norm 1, before clipping
    double clip_norm = 0;              // of the whole gradient; 0: off
    double ema = 0;                    // decay of the parameters' moving average; 0: there is none
    double beta = 1.0;                 // weight of the KL term in the loss; never in the elbo
    BetaSchedule beta_schedule = BetaSchedule::constant;
    std::uint32_t beta_epochs = 10;   // of a linear rise from 0, or of one cycle
    double beta_ramp = 0.5;           // of cyclic: the part of a cycle in which beta rises
    std::uint32_t micro_batches = 1;  // parts that the GPU takes a batch in, to save memory
    std::uint32_t graph_steps = 0;    // of a captured graph on the GPU; 0: as many as are good
    std::uint32_t patience = 0;       // epochs without a better held-out elbo that end it; 0: none

    // Examples of the largest part of a batch.
    std::uint32_t part_rows() const { return (batch - 1) / micro_batches + 1; }
};

struct Config {
    DataConfig data;
    ModelConfig model;
    ObjectiveConfig objective;
    TrainConfig train;
};

// The objective as it is computed: a KL divergence without a closed form is sampled. Whoever asks
// how kl is made asks this one; config.objective is what was set.
inline ObjectiveConfig effective_objective(const Config& config) {
    ObjectiveConfig objective = config.objective;
    if (config.model.prior != Prior::normal) objective.kl = KlTerm::sampled;
    return objective;
}

// The key of a setting that looks at a whole batch, which cannot be had from parts of it; null if
// there is none.
inline const char* whole_batch_setting(const Config& config) {
    if (config.objective.uses_free_bits()) return "objective.free_bits";
    if (config.objective.baseline == Baseline::running_mean) return "objective.baseline";
    if (config.model.variance == Variance::optimal) return "model.variance";
    return nullptr;
}

}  // namespace vae
