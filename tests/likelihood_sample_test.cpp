// What is drawn from each likelihood has its distribution. Discrete ones by a chi-square test,
// continuous ones by mean and variance; bounds are at five standard errors, or a chi-square value
// whose probability is below 1e-6, and the noise is fixed, so a failure is no accident.
#include "host/likelihood_sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numbers>
#include <vector>

#include "host/output_layer.h"

namespace vae {
namespace {

constexpr std::size_t kDraws = 20000;
constexpr std::uint64_t kSeed = 11;

ModelConfig model_of(Likelihood likelihood, std::uint32_t levels = 4) {
    ModelConfig model;
    model.likelihood = likelihood;
    model.levels = levels;
    model.encoder_hidden = model.decoder_hidden = {};
    model.latent = 1;
    return model;
}

// kDraws examples of the same outputs.
std::vector<float> draws_of(const ModelConfig& model, std::size_t pixels,
                            const std::vector<float>& outputs, float logvar = 0,
                            std::size_t count = kDraws) {
    const ParameterLayout layout(model, pixels);
    std::vector<float> parameters(layout.arena_size, 0.0F);
    if (has_logvar(model)) parameters[layout.output_logvar.offset] = logvar;
    std::vector<float> rows;
    for (std::size_t i = 0; i < count; ++i) rows.insert(rows.end(), outputs.begin(), outputs.end());
    return LikelihoodSampler(model, layout, parameters, kSeed).draw(rows, 0);
}

struct Moments {
    double mean = 0;
    double variance = 0;
    double fourth = 0;  // central
};

Moments moments_of(const std::vector<float>& values) {
    Moments m;
    const auto n = static_cast<double>(values.size());
    for (const float v : values) m.mean += static_cast<double>(v) / n;
    for (const float v : values) {
        const double square = std::pow(static_cast<double>(v) - m.mean, 2);
        m.variance += square / n;
        m.fourth += square * square / n;
    }
    return m;
}

// Five standard errors: √(variance/n) of a mean, √((fourth moment − variance²)/n) of a variance.
void expect_moments(const std::vector<float>& values, double mean, double variance) {
    const Moments m = moments_of(values);
    const auto n = static_cast<double>(values.size());
    EXPECT_NEAR(m.mean, mean, 5 * std::sqrt(variance / n));
    EXPECT_NEAR(m.variance, variance, 5 * std::sqrt((m.fourth - m.variance * m.variance) / n));
}

// Chi-square of counts against probability(value), classes of fewer than 10 expected taken
// together. The statistic of k classes has mean k − 1 and variance 2(k − 1); Wilson and Hilferty's
// cube root of it is normal, and 5 of its standard deviations are 3e-7.
void expect_distribution(const std::vector<float>& values, double first, double last, double step,
                         const std::function<double(double)>& probability) {
    std::map<double, double> counts;
    for (const float v : values) counts[std::round(static_cast<double>(v) / step)] += 1;
    const auto n = static_cast<double>(values.size());
    double statistic = 0;
    double classes = 0;
    double expected = 0;
    double observed = 0;
    double covered = 0;
    const auto close = [&] {
        if (expected > 0) statistic += (observed - expected) * (observed - expected) / expected;
        classes += 1;
        expected = observed = 0;
    };
    for (double k = std::round(first / step); k <= std::round(last / step); k += 1) {
        const double p = probability(k * step);
        covered += p;
        expected += n * p;
        observed += counts[k];
        if (expected >= 10) close();
    }
    expected += n * std::max(0.0, 1 - covered);
    for (const auto& [k, count] : counts) {
        if (k < std::round(first / step) || k > std::round(last / step)) observed += count;
    }
    if (expected > 0.5) close();
    const double freedom = classes - 1;
    ASSERT_GE(freedom, 1);
    const double spread = 2 / (9 * freedom);
    EXPECT_LT(std::cbrt(statistic / freedom), 1 - spread + 5 * std::sqrt(spread))
        << statistic << " with " << freedom << " degrees of freedom";
}

double bernoulli_p(double logit) {
    return 1 / (1 + std::exp(-logit));
}

TEST(LikelihoodSample, Bernoulli) {
    for (const float logit : {-3.0F, 0.0F, 0.7F, 4.0F}) {
        const auto x = draws_of(model_of(Likelihood::bernoulli), 1, {logit});
        const double p = bernoulli_p(static_cast<double>(logit));
        expect_distribution(x, 0, 1, 1, [p](double v) { return v == 1 ? p : 1 - p; });
    }
    for (const float x : draws_of(model_of(Likelihood::bernoulli), 1, {-200.0F})) EXPECT_EQ(x, 0);
    for (const float x : draws_of(model_of(Likelihood::bernoulli), 1, {200.0F})) EXPECT_EQ(x, 1);
}

TEST(LikelihoodSample, GaussianOfEveryKindOfVariance) {
    ModelConfig model = model_of(Likelihood::gaussian);
    model.sigma = 0.3;
    expect_moments(draws_of(model, 1, {1.5F}), 1.5, 0.09);
    model.variance = Variance::optimal;
    expect_moments(draws_of(model, 1, {-2.0F}, 1.2F), -2, std::exp(1.2F));
    model.variance = Variance::shared;
    expect_moments(draws_of(model, 1, {-2.0F}, 1.2F), -2,
                   std::exp(bounded(1.2F, log_bounds(model))));
    model.variance = Variance::pixel;
    expect_moments(draws_of(model, 1, {0.5F, -1.0F}), 0.5,
                   std::exp(bounded(-1, log_bounds(model))));
}

// The share below points of the normal distribution: its shape, not its moments alone.
TEST(LikelihoodSample, NormalsAreNormal) {
    std::vector<double> all;
    for (std::uint32_t i = 0; i < kDraws; ++i) {
        PixelNoise noise(kSeed, i, 3);
        all.push_back(draw_normal(noise));
    }
    for (const double point : {-2.5, -1.0, 0.0, 0.3, 1.0, 2.0, 3.0}) {
        const double p = std::erfc(-point / std::numbers::sqrt2) / 2;
        const auto below =
            std::count_if(all.begin(), all.end(), [&](double v) { return v < point; });
        EXPECT_NEAR(static_cast<double>(below) / kDraws, p, 5 * std::sqrt(p * (1 - p) / kDraws));
    }
}

TEST(LikelihoodSample, Logistic) {
    const ModelConfig model = model_of(Likelihood::logistic, 16);
    for (const float mean : {-0.2F, 0.4F, 1.0F}) {
        for (const float raw : {-3.0F, -1.5F, 1.0F}) {
            SCOPED_TRACE(testing::Message() << mean << ", " << raw);
            const double scale = std::exp(bounded(static_cast<double>(raw), log_bounds(model)));
            const auto cdf = [&](double x) {
                return bernoulli_p((x - static_cast<double>(mean)) / scale);
            };
            expect_distribution(draws_of(model, 1, {mean, raw}), 0, 1, 1.0 / 15, [&](double x) {
                const double above = x > 0.99 ? 1 : cdf(x + 0.5 / 15);
                return above - (x < 0.01 ? 0 : cdf(x - 0.5 / 15));
            });
        }
    }
}

TEST(LikelihoodSample, CategoricalAndOneHot) {
    const std::vector<float> logits = {0.5F, -1, 2, -30, 0.1F};
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l));
    const auto p = [&](std::size_t k) { return std::exp(static_cast<double>(logits[k])) / sum; };
    const auto x = draws_of(model_of(Likelihood::categorical, 5), 1, logits);
    expect_distribution(x, 0, 1, 0.25,
                        [&](double v) { return p(static_cast<std::size_t>(std::lround(v * 4))); });
    const auto onehot = draws_of(model_of(Likelihood::onehot, 5), 5, logits);
    std::vector<float> classes;
    for (std::size_t i = 0; i < kDraws; ++i) {
        const auto group = std::span(onehot).subspan(i * 5, 5);
        ASSERT_EQ(std::count(group.begin(), group.end(), 1.0F), 1);
        ASSERT_EQ(std::count(group.begin(), group.end(), 0.0F), 4);
        classes.push_back(
            static_cast<float>(std::max_element(group.begin(), group.end()) - group.begin()));
    }
    expect_distribution(classes, 0, 4, 1, [&](double v) { return p(static_cast<std::size_t>(v)); });
}

// Both sides of the rate where the sampler changes, and a large one.
TEST(LikelihoodSample, Poisson) {
    for (const double rate : {0.05, 1.0, 9.9, 10.1, 47.0, 1000.0}) {
        SCOPED_TRACE(rate);
        const auto log_rate = static_cast<float>(std::log(rate));
        const double exact = std::exp(static_cast<double>(log_rate));
        const auto x = draws_of(model_of(Likelihood::poisson), 1, {log_rate});
        expect_moments(x, exact, exact);
        const double reach = 8 * std::sqrt(exact) + 8;
        expect_distribution(
            x, std::max(0.0, std::floor(exact - reach)), std::floor(exact + reach), 1,
            [&](double k) { return std::exp(k * std::log(exact) - exact - std::lgamma(k + 1)); });
    }
}

TEST(LikelihoodSample, PoissonOfHugeRates) {
    for (const double rate : {1e6, 1e9, 1e14, 1e20}) {
        std::vector<double> scores;
        for (std::uint32_t i = 0; i < kDraws; ++i) {
            PixelNoise noise(kSeed, i, 0);
            scores.push_back((draw_poisson(rate, noise) - rate) / std::sqrt(rate));
        }
        // A score is normal but for 1/√rate. The floor of a count is lost in its spacing.
        double mean = 0;
        double square = 0;
        for (const double s : scores) {
            mean += s / kDraws;
            square += s * s / kDraws;
        }
        EXPECT_NEAR(mean, 0, 5 / std::sqrt(kDraws)) << rate;
        EXPECT_NEAR(square, 1, 5 * std::sqrt(2.0 / kDraws)) << rate;
    }
    PixelNoise noise(kSeed, 0, 0);
    EXPECT_EQ(draw_poisson(0, noise), 0);
    EXPECT_TRUE(std::isinf(draw_poisson(INFINITY, noise)));
    EXPECT_TRUE(std::isnan(draw_poisson(NAN, noise)));
}

// Neighbouring pixels and examples are independent: the covariance of uniforms within five
// standard errors of 0, (1/12)/√n.
TEST(LikelihoodSample, NeighboursAreIndependent) {
    const auto uniform = [](std::uint32_t example, std::uint32_t pixel) {
        return PixelNoise(kSeed, example, pixel).next();
    };
    double of_pixels = 0;
    double of_examples = 0;
    double of_pair = 0;
    for (std::uint32_t i = 0; i < kDraws; ++i) {
        const auto [first, second] = uniform(i, 0);
        of_pixels += (first - .5) * (uniform(i, 1).first - .5) / kDraws;
        of_examples += (first - .5) * (uniform(i + 1, 0).first - .5) / kDraws;
        of_pair += (first - .5) * (second - .5) / kDraws;
    }
    const double bound = 5.0 / 12 / std::sqrt(kDraws);
    EXPECT_NEAR(of_pixels, 0, bound);
    EXPECT_NEAR(of_examples, 0, bound);
    EXPECT_NEAR(of_pair, 0, bound);
}

TEST(LikelihoodSample, FirstExamplesDoNotDependOnTheCount) {
    const ModelConfig model = model_of(Likelihood::poisson);
    const ParameterLayout layout(model, 3);
    const LikelihoodSampler sampler(model, layout, std::vector<float>(layout.arena_size), kSeed);
    const std::vector<float> outputs = {0.1F, 3, 5, 2, 4, 1, 0, 0, 9};
    const std::vector<float> all = sampler.draw(outputs, 0);
    const auto last = sampler.draw(std::span(outputs).subspan(6), 2);
    EXPECT_TRUE(std::equal(last.begin(), last.end(), all.begin() + 6));
    const LikelihoodSampler other(model, layout, std::vector<float>(layout.arena_size), kSeed + 1);
    EXPECT_NE(other.draw(outputs, 0), all);
}

}  // namespace
}  // namespace vae
