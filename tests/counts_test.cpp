// Counts: what the encoder sees of them, and that training takes bytes as counts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "host/backend.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

Config config_of(Likelihood likelihood) {
    Config config;
    config.model.likelihood = likelihood;
    return config;
}

// The same network for another likelihood, given the logarithms, has the same posteriors.
TEST(Counts, TheEncoderSeesTheirLogarithms) {
    constexpr std::size_t kPixels = 9;
    const std::vector<float> counts = {0, 1, 2, 3, 255, 1e6F, 0, 7, 65535};
    std::vector<float> logs(kPixels);
    std::transform(counts.begin(), counts.end(), logs.begin(),
                   [](float count) { return std::log2(1 + count) / 8; });
    for (const bool is_deep : {true, false}) {
        const auto posterior_of = [&](Likelihood likelihood, const std::vector<float>& x) {
            Config config = config_of(likelihood);
            config.model.encoder_hidden.clear();
            if (is_deep) config.model.encoder_hidden = {5};
            const ParameterLayout layout(config.model, kPixels);
            const auto backend = make_cpu_double_backend(config, layout);
            backend->set_state(test::initial_state(layout, config));
            return backend->encode(x);
        };
        const Posterior a = posterior_of(Likelihood::poisson, counts);
        const Posterior b = posterior_of(Likelihood::gaussian, logs);
        ASSERT_EQ(a.mu.size(), b.mu.size());
        for (std::size_t j = 0; j < a.mu.size(); ++j) {
            EXPECT_NEAR(a.mu[j], b.mu[j], 1e-6) << j;  // roundings of numbers of order one
            EXPECT_NEAR(a.logvar[j], b.logvar[j], 1e-6) << j;
        }
    }
}

// The default network on images of the usual size: raw bytes in the first layer would drive
// log-rates beyond 88, where a float's exponential overflows.
TEST(Counts, BytesTrainWithoutASkippedStep) {
    constexpr std::uint32_t kSteps = 30;
    Config config = config_of(Likelihood::poisson);
    config.train.batch = 16;
    Splits splits;
    splits.train = test::random_bytes(kSteps * config.train.batch, 784);
    splits.train.bytes_are_counts = true;
    const ParameterLayout layout(config.model, 784);
    for (const auto make : {make_cpu_backend, make_cpu_double_backend}) {
        const auto backend = make(config, layout);
        backend->set_data(splits);
        backend->set_state(test::initial_state(layout, config));
        const auto first = backend->evaluate(Split::train, 1);
        const auto rows = test::first_rows(splits.train.size);
        const std::vector<StepSchedule> schedule(kSteps, {1e-3, 1});
        backend->train({0, rows, config.train.batch, schedule});
        EXPECT_EQ(backend->take_totals().skipped.count, 0U) << backend->name();
        EXPECT_LT(backend->evaluate(Split::train, 1).recon, first.recon / 2) << backend->name();
    }
}

}  // namespace
}  // namespace vae
