// Every setting of a run, with its default. config_file.h reads and writes them as TOML.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vae {

enum class Activation { relu, tanh, softplus, gelu, silu };  // gelu is the exact one (erf)
enum class Likelihood { bernoulli, gaussian, logistic, categorical, onehot, poisson };
// Of the Gaussian likelihood: sigma as set; one learned; the decoder's second output for each
// pixel; the best for the batch, in closed form.
enum class Variance { fixed, shared, pixel, optimal };
enum class Initialization { pytorch, glorot, he };
// How grey pixels in [0,1] become the data: as they are; drawn anew each step (evaluation splits
// are drawn once); drawn once.
enum class Binarize { none, dynamic, fixed };

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
    Variance variance = Variance::fixed;
    double sigma = 0.7071067811865476;  // of the Gaussian likelihood with a fixed variance
    double sigma_min = 0.01;            // bounds of what the likelihood learns: a sigma, or the
    double sigma_max = 10.0;            // scale of the logistic likelihood
    std::uint32_t levels = 256;         // values of a discrete pixel; width of a one-hot group
    double logvar_min = -10.0;          // the encoder's log-variance is clamped to this range
    double logvar_max = 10.0;
    Initialization initialization = Initialization::pytorch;
};

struct TrainConfig {
    std::uint64_t seed = 1;
    std::uint32_t epochs = 10;
    std::uint64_t steps = 0;  // 0: as many as the epochs take; else this many and epochs is unused
    std::uint32_t batch = 128;
    double learning_rate = 1e-3;
    double adam_beta1 = 0.9;
    double adam_beta2 = 0.999;
    double adam_epsilon = 1e-8;
    double beta = 1.0;  // weight of the KL term in the loss; never in the elbo
};

struct Config {
    DataConfig data;
    ModelConfig model;
    TrainConfig train;
};

}  // namespace vae
