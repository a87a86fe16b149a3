// The networks that the CUDA backend's tests run: each activation, likelihood, objective, posterior
// and prior, with sizes that divide nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <vector>

#include "host/output_layer.h"
#include "tests/model_fixtures.h"

namespace vae::test {

struct NetworkCase {
    const char* name;
    std::vector<std::uint32_t> encoder;
    std::uint32_t latent;
    std::vector<std::uint32_t> decoder;
    Activation activation = Activation::relu;
    Likelihood likelihood = Likelihood::bernoulli;
    std::size_t pixels = 33;
    std::uint32_t batch = 16;
    Binarize binarize = Binarize::none;
    bool bytes = true;
    double beta = 1;
    ObjectiveConfig objective = {};
    Variance variance = Variance::fixed;
    std::uint32_t levels = 256;
    Prior prior = Prior::normal;
    std::uint32_t components = 9;
    PosteriorCovariance posterior = PosteriorCovariance::diagonal;
    Precision precision = Precision::fp32;
    FusionPlan plan = FusionPlan::automatic;
};

inline void PrintTo(const NetworkCase& c, std::ostream* out) {
    *out << c.name;
}

inline Config config_of(const NetworkCase& c) {
    Config config;
    config.data.binarize = c.binarize;
    config.model.encoder_hidden = c.encoder;
    config.model.latent = c.latent;
    config.model.decoder_hidden = c.decoder;
    config.model.activation = c.activation;
    config.model.likelihood = c.likelihood;
    config.model.sigma = 0.6;
    config.model.variance = c.variance;
    config.model.levels = c.levels;
    config.model.prior = c.prior;
    config.model.prior_components = c.components;
    config.model.posterior = c.posterior;
    // Narrow enough for the bounds to be felt.
    config.model.sigma_min = 0.2;
    config.model.sigma_max = 3;
    // Narrow enough for some log-variances to be clamped.
    config.model.logvar_min = -0.2;
    config.model.logvar_max = 0.25;
    config.objective = c.objective;
    config.train.batch = c.batch;
    config.train.seed = 77;
    config.train.precision = c.precision;
    config.train.plan = c.plan;
    return config;
}

inline Splits make_splits(const NetworkCase& c) {
    const auto make = [&](std::size_t size, std::uint32_t first) {
        Dataset data = c.bytes
                           ? random_bytes(size, c.pixels, first)
                           : in_support(random_floats(size, c.pixels, first), config_of(c).model);
        data.bytes_are_counts = takes_bytes_as_counts(c.likelihood);
        if (c.bytes && data.bytes_are_counts) {
            // Hundreds would drive tanh to its ends, where Adam follows the signs of rounding.
            change_values<std::uint8_t>(data, [](std::vector<std::uint8_t>& values) {
                for (auto& byte : values) byte %= 7;
            });
        }
        return data;
    };
    Splits splits;
    splits.train = make(101, 0);
    splits.validation = make(13, 101);
    splits.test = make(37, 114);
    return splits;
}

inline std::vector<NetworkCase> network_cases() {
    return {
        NetworkCase{.name = "relu", .encoder = {40}, .latent = 5, .decoder = {40}},
        NetworkCase{.name = "relu_deep_epilogue",
                    .encoder = {40, 17},
                    .latent = 5,
                    .decoder = {129, 40},
                    .objective = {.samples = 2},
                    .plan = FusionPlan::epilogue},
        NetworkCase{.name = "relu_deep_fused",
                    .encoder = {37, 50},
                    .latent = 5,
                    .decoder = {50, 37},
                    .plan = FusionPlan::fused},
        NetworkCase{.name = "tanh_fused_iwae",
                    .encoder = {37},
                    .latent = 3,
                    .decoder = {50, 7},
                    .activation = Activation::tanh,
                    .pixels = 101,
                    .batch = 13,
                    .objective = {.bound = Bound::iwae, .samples = 5},
                    .plan = FusionPlan::fused},
        NetworkCase{.name = "gated_fused",
                    .encoder = {37, 50},
                    .latent = 6,
                    .decoder = {50, 31},
                    .activation = Activation::gated,
                    .pixels = 101,
                    .batch = 19,
                    .objective = {.samples = 2},
                    .plan = FusionPlan::fused},
        NetworkCase{.name = "gelu_fused_vamp",
                    .encoder = {50, 37},
                    .latent = 6,
                    .decoder = {37},
                    .activation = Activation::gelu,
                    .beta = 0.7,
                    .prior = Prior::vamp,
                    .plan = FusionPlan::fused},
        NetworkCase{.name = "tanh_deep_ragged",
                    .encoder = {31, 17},
                    .latent = 3,
                    .decoder = {7, 29, 33},
                    .activation = Activation::tanh,
                    .pixels = 101,
                    .batch = 13,
                    .beta = 0.3},
        NetworkCase{.name = "softplus_gaussian",
                    .encoder = {33},
                    .latent = 2,
                    .decoder = {9},
                    .activation = Activation::softplus,
                    .likelihood = Likelihood::gaussian,
                    .bytes = false},
        NetworkCase{.name = "gelu_dynamic",
                    .encoder = {32},
                    .latent = 32,
                    .decoder = {32},
                    .activation = Activation::gelu,
                    .binarize = Binarize::dynamic,
                    .beta = 2},
        NetworkCase{.name = "silu_fixed",
                    .encoder = {64, 64},
                    .latent = 33,
                    .decoder = {64, 64},
                    .activation = Activation::silu,
                    .pixels = 64,
                    .binarize = Binarize::fixed,
                    .bytes = false},
        NetworkCase{.name = "gated_ragged",
                    .encoder = {31, 64},
                    .latent = 6,
                    .decoder = {17, 40},
                    .activation = Activation::gated,
                    .pixels = 101,
                    .batch = 19},
        NetworkCase{.name = "linear_gaussian",
                    .encoder = {},
                    .latent = 4,
                    .decoder = {},
                    .likelihood = Likelihood::gaussian,
                    .pixels = 11,
                    .batch = 1},
        NetworkCase{.name = "gaussian_shared",
                    .encoder = {33},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::silu,
                    .likelihood = Likelihood::gaussian,
                    .batch = 19,
                    .bytes = false,
                    .variance = Variance::shared},
        NetworkCase{.name = "gaussian_pixel",
                    .encoder = {33},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::gaussian,
                    .pixels = 132,
                    .batch = 19,
                    .variance = Variance::pixel},
        NetworkCase{.name = "gaussian_optimal",
                    .encoder = {33},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::gelu,
                    .likelihood = Likelihood::gaussian,
                    .batch = 19,
                    .variance = Variance::optimal},
        NetworkCase{.name = "logistic_bytes",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::logistic,
                    .pixels = 64},
        NetworkCase{.name = "logistic_four_levels",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::silu,
                    .likelihood = Likelihood::logistic,
                    .pixels = 31,
                    .bytes = false,
                    .levels = 4},
        NetworkCase{.name = "categorical_bytes",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::categorical,
                    .pixels = 9},
        NetworkCase{.name = "categorical_five_levels",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::silu,
                    .likelihood = Likelihood::categorical,
                    .bytes = false,
                    .levels = 5},
        NetworkCase{.name = "onehot",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::gelu,
                    .likelihood = Likelihood::onehot,
                    .pixels = 70,
                    .bytes = false,
                    .levels = 10},
        NetworkCase{.name = "poisson_bytes",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::poisson,
                    .pixels = 64},
        NetworkCase{.name = "poisson_floats",
                    .encoder = {24},
                    .latent = 3,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::poisson,
                    .bytes = false},
        NetworkCase{.name = "beta_zero",
                    .encoder = {1},
                    .latent = 1,
                    .decoder = {1},
                    .activation = Activation::tanh,
                    .pixels = 1,
                    .batch = 101,
                    .beta = 0},
        NetworkCase{.name = "elbo_draws",
                    .encoder = {40},
                    .latent = 5,
                    .decoder = {40},
                    .objective = {.samples = 3}},
        NetworkCase{.name = "elbo_sampled_gaussian",
                    .encoder = {31},
                    .latent = 6,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::gaussian,
                    .beta = 0.5,
                    .objective = {.kl = KlTerm::sampled}},
        NetworkCase{.name = "free_bits_per_dimension",
                    .encoder = {31},
                    .latent = 6,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .beta = 0.5,
                    .objective = {.free_bits = 0.02}},
        NetworkCase{.name = "free_bits_per_dimension_of_draws",
                    .encoder = {20},
                    .latent = 33,
                    .decoder = {20},
                    .activation = Activation::silu,
                    .objective = {.samples = 3, .free_bits = 0.02}},
        NetworkCase{.name = "free_bits_in_total",
                    .encoder = {20},
                    .latent = 4,
                    .decoder = {20},
                    .activation = Activation::silu,
                    .likelihood = Likelihood::gaussian,
                    .objective = {.free_bits = 0.01, .free_bits_per = FreeBitsPer::total}},
        NetworkCase{.name = "free_bits_in_total_score",
                    .encoder = {20},
                    .latent = 4,
                    .decoder = {20},
                    .activation = Activation::silu,
                    .objective = {.samples = 2,
                                  .gradient = EncoderGradient::score,
                                  .free_bits = 100,
                                  .free_bits_per = FreeBitsPer::total}},
        NetworkCase{.name = "full_covariance",
                    .encoder = {40},
                    .latent = 5,
                    .decoder = {40},
                    .posterior = PosteriorCovariance::full},
        NetworkCase{.name = "full_covariance_of_33",
                    .encoder = {31},
                    .latent = 33,
                    .decoder = {17},
                    .activation = Activation::tanh,
                    .likelihood = Likelihood::gaussian,
                    .beta = 0.5,
                    .objective = {.kl = KlTerm::sampled, .samples = 2},
                    .posterior = PosteriorCovariance::full},
        NetworkCase{.name = "full_covariance_of_1",
                    .encoder = {12},
                    .latent = 1,
                    .decoder = {9},
                    .posterior = PosteriorCovariance::full},
        NetworkCase{
            .name = "full_covariance_dreg",
            .encoder = {},
            .latent = 7,
            .decoder = {24},
            .activation = Activation::softplus,
            .beta = 0.7,
            .objective = {.bound = Bound::iwae, .samples = 5, .gradient = EncoderGradient::dreg},
            .posterior = PosteriorCovariance::full},
        NetworkCase{.name = "full_covariance_iwae",
                    .encoder = {20},
                    .latent = 2,
                    .decoder = {24},
                    .activation = Activation::gated,
                    .objective = {.bound = Bound::iwae, .samples = 9},
                    .posterior = PosteriorCovariance::full},
        NetworkCase{.name = "full_covariance_score_free_bits",
                    .encoder = {20},
                    .latent = 4,
                    .decoder = {20},
                    .activation = Activation::silu,
                    .objective = {.samples = 2,
                                  .gradient = EncoderGradient::score,
                                  .baseline = Baseline::leave_one_out,
                                  .free_bits = 0.01,
                                  .free_bits_per = FreeBitsPer::total},
                    .posterior = PosteriorCovariance::full},
        NetworkCase{.name = "iwae",
                    .encoder = {33},
                    .latent = 7,
                    .decoder = {29, 13},
                    .activation = Activation::tanh,
                    .batch = 11,
                    .binarize = Binarize::dynamic,
                    .objective = {.bound = Bound::iwae, .samples = 33}},
        NetworkCase{.name = "dreg",
                    .encoder = {},
                    .latent = 8,
                    .decoder = {24},
                    .activation = Activation::softplus,
                    .beta = 0.7,
                    .objective = {.bound = Bound::iwae,
                                  .kl = KlTerm::sampled,
                                  .samples = 5,
                                  .gradient = EncoderGradient::dreg}},
        NetworkCase{.name = "score_leave_one_out",
                    .encoder = {20},
                    .latent = 3,
                    .decoder = {},
                    .objective = {.samples = 4,
                                  .gradient = EncoderGradient::score,
                                  .baseline = Baseline::leave_one_out}},
        NetworkCase{.name = "score_running_mean",
                    .encoder = {20},
                    .latent = 3,
                    .decoder = {20},
                    .activation = Activation::silu,
                    .objective = {.kl = KlTerm::sampled,
                                  .samples = 2,
                                  .gradient = EncoderGradient::score,
                                  .baseline = Baseline::running_mean}},
        NetworkCase{.name = "mixture",
                    .encoder = {33},
                    .latent = 7,
                    .decoder = {29},
                    .activation = Activation::tanh,
                    .beta = 0.7,
                    .prior = Prior::mixture},
        NetworkCase{
            .name = "mixture_many_dreg",
            .encoder = {24},
            .latent = 34,
            .decoder = {17},
            .activation = Activation::softplus,
            .batch = 11,
            .objective = {.bound = Bound::iwae, .samples = 13, .gradient = EncoderGradient::dreg},
            .prior = Prior::mixture,
            .components = 70},
        NetworkCase{.name = "vamp",
                    .encoder = {33, 21},
                    .latent = 7,
                    .decoder = {29},
                    .activation = Activation::gated,
                    .beta = 0.7,
                    .prior = Prior::vamp},
        // More pseudo-inputs than draws of a batch.
        NetworkCase{.name = "vamp_many_iwae",
                    .encoder = {24},
                    .latent = 5,
                    .decoder = {17},
                    .activation = Activation::silu,
                    .batch = 3,
                    .objective = {.bound = Bound::iwae, .samples = 2},
                    .prior = Prior::vamp,
                    .components = 600},
        NetworkCase{.name = "vamp_linear_score",
                    .encoder = {},
                    .latent = 3,
                    .decoder = {},
                    .objective = {.samples = 2,
                                  .gradient = EncoderGradient::score,
                                  .baseline = Baseline::leave_one_out},
                    .prior = Prior::vamp},
        NetworkCase{.name = "full_covariance_mixture_iwae",
                    .encoder = {20},
                    .latent = 6,
                    .decoder = {24},
                    .activation = Activation::tanh,
                    .objective = {.bound = Bound::iwae, .samples = 4},
                    .prior = Prior::mixture,
                    .posterior = PosteriorCovariance::full}};
}

}  // namespace vae::test
