#include "host/likelihood_sample.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "host/noise.h"
#include "host/output_layer.h"

namespace vae {
namespace {

// (k + ½)/2^53: neither 0 nor 1.
double unit(std::uint32_t high, std::uint32_t low) {
    const std::uint64_t word = (std::uint64_t{high} << 32 | low) >> 11;
    return (static_cast<double>(word) + 0.5) * 0x1p-53;
}

// log of the Poisson probability of a count k >= 1, exact for large rates: the three terms of the
// definition cancel, these do not.
double log_poisson(double k, double rate) {
    const double change = (rate - k) / k;
    const double r = 1 / k;
    const double stirling = k < 10 ? k - k * std::log(k) + std::lgamma(k + 1)
                                   : std::log(2 * std::numbers::pi * k) / 2 + r / 12 -
                                         r * r * r / 360 + r * r * r * r * r / 1260;
    return -k * (change - std::log1p(change)) - stirling;
}

double poisson_by_inversion(double rate, PixelNoise& noise) {
    const double u = noise.next().first;
    double probability = std::exp(-rate);
    double below = probability;
    double k = 0;
    while (u > below && probability > 0) {
        k += 1;
        probability *= rate / k;
        below += probability;
    }
    return k;
}

// Hörmann 1993, "The transformed rejection method for generating Poisson random variables",
// algorithm PTRS; for rates of at least 10.
double poisson_by_rejection(double rate, PixelNoise& noise) {
    const double b = 0.931 + 2.53 * std::sqrt(rate);
    const double a = -0.059 + 0.02483 * b;
    const double log_inverse_alpha = std::log(1.1239 + 1.1328 / (b - 3.4));
    const double most_v = 0.9277 - 3.6224 / (b - 2);
    for (;;) {
        const auto [first, v] = noise.next();
        const double u = first - 0.5;
        const double us = 0.5 - std::abs(u);
        const double k = std::floor((2 * a / us + b) * u + rate + 0.43);
        if (us >= 0.07 && v <= most_v) return k;
        if (k < 0 || (us < 0.013 && v > us)) continue;
        const double log_p = k == 0 ? -rate : log_poisson(k, rate);
        if (std::log(v) + log_inverse_alpha - std::log(a / (us * us) + b) <= log_p) return k;
    }
}

}  // namespace

PixelNoise::Pair PixelNoise::next() {
    const NoiseAddress address{.seed = seed_,
                               .purpose = Purpose::likelihood_sample,
                               .step = attempt_++,
                               .example = example_};
    const PhiloxBlock words = noise_block(address, pixel_);
    return {unit(words[0], words[1]), unit(words[2], words[3])};
}

double draw_normal(PixelNoise& noise) {
    const auto [u, v] = noise.next();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

double draw_logistic(PixelNoise& noise) {
    const double u = noise.next().first;
    return std::log(u) - std::log1p(-u);
}

std::size_t draw_class(std::span<const float> logits, PixelNoise& noise) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l) - largest);
    double left = noise.next().first * sum;
    for (std::size_t k = 0; k + 1 < logits.size(); ++k) {
        left -= std::exp(static_cast<double>(logits[k]) - largest);
        if (left <= 0) return k;
    }
    return logits.size() - 1;
}

double draw_poisson(double rate, PixelNoise& noise) {
    if (!std::isfinite(rate)) return rate;
    return rate < 10 ? poisson_by_inversion(rate, noise) : poisson_by_rejection(rate, noise);
}

LikelihoodSampler::LikelihoodSampler(const ModelConfig& model, const ParameterLayout& layout,
                                     std::span<const float> parameters, std::uint64_t seed)
    : model_(model), pixels_(layout.pixels), width_(layout.output.out), seed_(seed) {
    sigma_ = model.sigma;
    if (!has_logvar(model)) return;
    sigma_ = sigma_of(model, static_cast<double>(parameters[layout.output_logvar.offset]));
}

std::vector<float> LikelihoodSampler::draw(std::span<const float> outputs,
                                           std::uint32_t first) const {
    const std::size_t rows = outputs.size() / width_;
    std::vector<float> x(rows * pixels_);
    for (std::size_t r = 0; r < rows; ++r) {
        draw_row(outputs.data() + r * width_, first + static_cast<std::uint32_t>(r),
                 x.data() + r * pixels_);
    }
    return x;
}

void LikelihoodSampler::draw_row(const float* outputs, std::uint32_t example, float* x) const {
    if (is_softmax(model_.likelihood)) return draw_softmax(outputs, example, x);
    for (std::size_t c = 0; c < pixels_; ++c) {
        x[c] = draw_pixel(outputs, c, {seed_, example, static_cast<std::uint32_t>(c)});
    }
}

void LikelihoodSampler::draw_softmax(const float* outputs, std::uint32_t example, float* x) const {
    const std::size_t classes = model_.levels;
    const bool is_onehot = model_.likelihood == Likelihood::onehot;
    for (std::size_t group = 0; group < width_ / classes; ++group) {
        PixelNoise noise(seed_, example, static_cast<std::uint32_t>(group));
        const std::size_t k = draw_class({outputs + group * classes, classes}, noise);
        if (is_onehot) {
            x[group * classes + k] = 1;
        } else {
            x[group] = static_cast<float>(k) / static_cast<float>(classes - 1);
        }
    }
}

float LikelihoodSampler::draw_pixel(const float* outputs, std::size_t pixel,
                                    PixelNoise noise) const {
    const auto output = static_cast<double>(outputs[pixel]);
    const auto scale = [&] {
        return bounded(static_cast<double>(outputs[pixels_ + pixel]), log_bounds(model_));
    };
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return noise.next().first <= 1 / (1 + std::exp(-output)) ? 1.0F : 0.0F;
        case Likelihood::gaussian: {
            const double sigma =
                model_.variance == Variance::pixel ? std::exp(scale() / 2) : sigma_;
            return static_cast<float>(output + sigma * draw_normal(noise));
        }
        case Likelihood::logistic: {
            // Each level's bin has its mass, and the outermost the tails.
            const double steps = model_.levels - 1;
            const double value = output + std::exp(scale()) * draw_logistic(noise);
            const double level = std::floor(std::clamp(value, 0.0, 1.0) * steps + 0.5);
            return static_cast<float>(level) / static_cast<float>(steps);
        }
        case Likelihood::poisson:
            return static_cast<float>(draw_poisson(std::exp(output), noise));
        case Likelihood::categorical:
        case Likelihood::onehot:
            break;
    }
    return 0;
}

}  // namespace vae
