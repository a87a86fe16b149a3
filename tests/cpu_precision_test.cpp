// The float backend against the double one: every traced tensor, and the parameters and
// losses after 20 steps, over all activations and likelihoods, ragged sizes and ways to binarize.
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/output_layer.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr double kGate = 1e-5;      // relative L2 of any tensor: the project's gate for FP32
constexpr double kLossGate = 1e-6;  // of the loss

struct Case {
    std::string name;
    Activation activation = Activation::relu;
    Likelihood likelihood = Likelihood::bernoulli;
    std::size_t pixels = 61;
    std::vector<std::uint32_t> encoder = {37, 16};
    std::uint32_t latent = 7;
    std::vector<std::uint32_t> decoder = {16, 37};
    std::uint32_t batch = 13;
    std::size_t examples = 100;  // not a multiple of the batch
    Binarize binarize = Binarize::none;
    double beta = 1;
    std::uint64_t steps = 20;
    Variance variance = Variance::fixed;
    std::uint32_t levels = 256;
    bool bytes = true;
    PosteriorCovariance posterior = PosteriorCovariance::diagonal;
    ObjectiveConfig objective = {};
};

void PrintTo(const Case& shown, std::ostream* out) {
    *out << shown.name;
}

class CpuPrecision : public testing::TestWithParam<Case> {};

TEST_P(CpuPrecision, FloatAgreesWithDouble) {
    const Case& p = GetParam();
    Config config;
    config.data.binarize = p.binarize;
    config.model.activation = p.activation;
    config.model.likelihood = p.likelihood;
    config.model.encoder_hidden = p.encoder;
    config.model.latent = p.latent;
    config.model.decoder_hidden = p.decoder;
    config.model.variance = p.variance;
    config.model.levels = p.levels;
    config.model.posterior = p.posterior;
    config.objective = p.objective;
    Splits splits = test::random_splits(p.examples, 3, p.pixels);
    if (!p.bytes) {
        splits.train = test::in_support(test::random_floats(p.examples, p.pixels), config.model);
        splits.test = test::in_support(
            test::random_floats(3, p.pixels, static_cast<std::uint32_t>(p.examples)), config.model);
    }
    splits.train.bytes_are_counts = splits.test.bytes_are_counts =
        takes_bytes_as_counts(p.likelihood);
    const ParameterLayout layout(config.model, p.pixels);
    const auto single = make_cpu_backend(config, layout);
    const auto exact = make_cpu_double_backend(config, layout);
    for (Backend* backend : {single.get(), exact.get()}) {
        backend->set_data(splits);
        backend->set_state(test::initial_state(layout, config));
    }
    const auto rows = test::first_rows(p.examples);
    const std::size_t traced = std::min<std::size_t>(p.batch, p.examples);
    const TrainRequest one_step{0, std::span(rows).first(traced), p.batch, {{1e-3, p.beta}}};
    const Trace a = single->trace(one_step);
    const Trace b = exact->trace(one_step);
    ASSERT_EQ(a.size(), b.size());
    ASSERT_FALSE(a.empty());
    for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(a[i].name, b[i].name);
        EXPECT_LE(test::relative_l2(a[i].values, b[i].values),
                  a[i].name == "loss" ? kLossGate : kGate)
            << a[i].name;
    }
    const std::size_t steps_an_epoch = (p.examples + p.batch - 1) / p.batch;
    for (std::uint64_t step = 0; step < p.steps; ++step) {
        const std::size_t begin = step % steps_an_epoch * p.batch;
        const std::size_t count = std::min<std::size_t>(p.batch, p.examples - begin);
        const TrainRequest request{
            step, std::span(rows).subspan(begin, count), p.batch, {{1e-3, p.beta}}};
        single->train(request);
        exact->train(request);
    }
    EXPECT_LE(test::relative_l2(single->exact_parameters(), exact->exact_parameters()), kGate);
    const LossTotals s = single->take_totals().losses;
    const LossTotals e = exact->take_totals().losses;
    EXPECT_NEAR(s.loss, e.loss, kLossGate * e.loss);
    EXPECT_NEAR(s.recon, e.recon, kLossGate * e.recon);
    EXPECT_NEAR(s.kl, e.kl, kGate * e.kl);
    const LossTotals held_out_s = single->evaluate(Split::test, p.beta);
    const LossTotals held_out_e = exact->evaluate(Split::test, p.beta);
    EXPECT_EQ(held_out_s.examples, 3U);
    EXPECT_NEAR(held_out_s.loss, held_out_e.loss, kLossGate * held_out_e.loss);
}

std::vector<Case> cases() {
    using enum Activation;
    std::vector<Case> all;
    const std::vector<std::pair<Activation, std::string>> activations = {
        {relu, "relu"}, {tanh, "tanh"}, {softplus, "softplus"},
        {gelu, "gelu"}, {silu, "silu"}, {gated, "gated"}};
    for (const auto& [activation, name] : activations) {
        all.push_back({.name = name + "_bernoulli", .activation = activation});
        all.push_back({.name = name + "_gaussian",
                       .activation = activation,
                       .likelihood = Likelihood::gaussian});
    }
    for (const auto& [variance, name] :
         {std::pair(Variance::shared, "shared"), std::pair(Variance::pixel, "pixel"),
          std::pair(Variance::optimal, "optimal")}) {
        all.push_back({.name = std::string("gaussian_") + name,
                       .activation = tanh,
                       .likelihood = Likelihood::gaussian,
                       .variance = variance});
    }
    all.push_back({.name = "logistic", .activation = silu, .likelihood = Likelihood::logistic});
    all.push_back({.name = "categorical",
                   .activation = tanh,
                   .likelihood = Likelihood::categorical,
                   .pixels = 11});
    all.push_back({.name = "onehot",
                   .activation = tanh,
                   .likelihood = Likelihood::onehot,
                   .pixels = 60,
                   .levels = 6,
                   .bytes = false});
    all.push_back({.name = "poisson_floats",
                   .activation = tanh,
                   .likelihood = Likelihood::poisson,
                   .bytes = false});
    all.push_back({.name = "dynamic", .binarize = Binarize::dynamic});
    all.push_back({.name = "fixed_beta", .binarize = Binarize::fixed, .beta = 4});
    all.push_back({.name = "batch_of_one", .batch = 1, .examples = 30});
    all.push_back({.name = "one_of_everything",
                   .pixels = 1,
                   .encoder = {1},
                   .latent = 1,
                   .decoder = {1},
                   .batch = 2,
                   .examples = 5});
    all.push_back({.name = "no_hidden_layers", .encoder = {}, .decoder = {}});
    for (const std::uint32_t latent : {1U, 2U, 17U, 33U}) {
        all.push_back({.name = "full_covariance_of_" + std::to_string(latent),
                       .activation = tanh,
                       .latent = latent,
                       .posterior = PosteriorCovariance::full});
    }
    all.push_back({.name = "full_covariance_iwae",
                   .activation = tanh,
                   .posterior = PosteriorCovariance::full,
                   .objective = {.bound = Bound::iwae, .samples = 3}});
    all.push_back({.name = "wide",
                   .pixels = 784,
                   .encoder = {400},
                   .latent = 20,
                   .decoder = {400},
                   .batch = 128,
                   .examples = 300,
                   .steps = 5});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Models, CpuPrecision, testing::ValuesIn(cases()),
                         [](const auto& test_case) { return test_case.param.name; });

}  // namespace
}  // namespace vae
