// Every setting of a run, with its default. config_file.h reads and writes them as TOML.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vae {

// gelu is the exact one (erf). gated is no function of one number: its layers have two linear maps.
enum class Activation { relu, tanh, softplus, gelu, silu, gated };
enum class Likelihood { bernoulli, gaussian };
enum class Initialization { pytorch, glorot, he };
// How grey pixels in [0,1] become the data: as they are; drawn anew each step (evaluation splits
// are drawn once); drawn once.
enum class Binarize { none, dynamic, fixed };

// How the learning rate and beta go on from step to step; host/schedule.h.
enum class LearningRateSchedule { constant, step, cosine, burda };
enum class BetaSchedule { constant, linear, cyclic };

struct DataConfig {
    std::string source = "fashion-mnist";
    std::uint32_t validation = 0;  // how many of the last training examples are held out
    Binarize binarize = Binarize::none;
};

struct ModelConfig {
    std::vector<std::uint32_t> encoder_hidden = {400};
    std::uint32_t latent = 20;
    std::vector<std::uint32_t> decoder_hidden = {400};
    Activation activation = Activation::relu;
    Likelihood likelihood = Likelihood::bernoulli;
    double sigma = 0.7071067811865476;  // of the Gaussian likelihood
    double logvar_min = -10.0;          // the encoder's log-variance is clamped to this range
    double logvar_max = 10.0;
    Initialization initialization = Initialization::pytorch;
    bool data_bias = false;  // biases start from the data's mean; host/data_bias.h
};

struct TrainConfig {
    std::uint64_t seed = 1;
    std::uint32_t epochs = 10;
    std::uint64_t steps = 0;  // 0: as many as the epochs take; else this many and epochs is unused
    std::uint32_t batch = 128;
    double learning_rate = 1e-3;
    LearningRateSchedule schedule = LearningRateSchedule::constant;
    double schedule_factor = 0.1;        // of step: multiplies the learning rate …
    std::uint32_t schedule_epochs = 10;  // … every so many epochs
    double learning_rate_final = 0;      // of cosine: where it ends
    std::uint32_t warmup_steps = 0;      // the learning rate rises linearly in these
    double adam_beta1 = 0.9;
    double adam_beta2 = 0.999;
    double adam_epsilon = 1e-8;
    double beta = 1.0;  // weight of the KL term in the loss; never in the elbo
    BetaSchedule beta_schedule = BetaSchedule::constant;
    std::uint32_t beta_epochs = 10;  // of a linear rise from 0, or of one cycle
    double beta_ramp = 0.5;          // of cyclic: the part of a cycle in which beta rises
    std::uint32_t patience = 0;      // epochs without a better held-out elbo that end it; 0: none
};

struct Config {
    DataConfig data;
    ModelConfig model;
    TrainConfig train;
};

}  // namespace vae
