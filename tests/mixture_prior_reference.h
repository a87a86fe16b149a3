// Inputs and double references of the kernels of a mixture of Gaussians.
#pragma once

#include <algorithm>
#include <cmath>
#include <ostream>
#include <vector>

#include "tests/kernel_reference.h"

namespace vae::test {

inline constexpr float kMixtureLow = -1.5f;
inline constexpr float kMixtureHigh = 1.25f;
inline constexpr float kMixtureScale = 0.37f;
// Of a sum over at most 32 terms in float, the rest in double; of a term's own products, of which
// exp is good to 2 units (5 roundings); and of the result.
inline constexpr double kMixtureRoundings = 32 + 13 + 2;

struct MixtureShape {
    int rows = 0;
    int components = 1;
    int latent = 1;
    int stride = 0;          // more than latent: rows of heads, with biases and no logits
    bool is_extreme = true;  // some log-variances lie outside their range, or at its ends
};

inline std::ostream& operator<<(std::ostream& out, const MixtureShape& s) {
    return out << s.rows << " codes, " << s.components << " components of " << s.latent << " in "
               << s.stride << ", seed " << kSeed;
}

// Inputs and double references. r counts codes, k components, j latent elements.
struct Mixture {
    explicit Mixture(const MixtureShape& s)
        : shape(s),
          rows(static_cast<std::size_t>(s.rows)),
          components(static_cast<std::size_t>(s.components)),
          latent(static_cast<std::size_t>(s.latent)),
          is_heads(s.stride > s.latent),
          stride(static_cast<std::size_t>(is_heads ? 2 * s.stride : s.latent)),
          mean(random_normals(components * stride, 1)),
          logvar(random_normals(components * stride, 2, 0.5f)),
          mean_bias(random_normals(latent, 3)),
          logvar_bias(random_normals(latent, 4, 0.3f)),
          logits(random_normals(components, 5)),
          z(random_normals(rows * latent, 6, 1.5f)),
          weight(random_normals(rows, 7)),
          log_ratio(random_normals(rows, 8)) {
        if (!s.is_extreme) return;
        for (std::size_t i = 0; i < logvar.size(); ++i) {
            if (i % 7 == 0) logvar[i] = 40;
            if (i % 7 == 3) logvar[i] = -40;
            if (i % 7 == 5 && !is_heads) logvar[i] = i % 2 == 0 ? kMixtureLow : kMixtureHigh;
        }
    }

    // The kernel's own float sums.
    double m(std::size_t k, std::size_t j) const {
        return is_heads ? mean[k * stride + j] + mean_bias[j] : mean[k * stride + j];
    }
    double unclamped(std::size_t k, std::size_t j) const {
        return is_heads ? logvar[k * stride + j] + logvar_bias[j] : logvar[k * stride + j];
    }
    double v(std::size_t k, std::size_t j) const {
        return std::clamp<double>(unclamped(k, j), kMixtureLow, kMixtureHigh);
    }
    double precision(std::size_t k, std::size_t j) const { return std::exp(-v(k, j)); }
    double distance(std::size_t r, std::size_t k, std::size_t j) const {
        return z[r * latent + j] - m(k, j);
    }
    double log_weight(std::size_t k) const {
        if (is_heads) return -std::log(static_cast<double>(components));
        double total = 0;
        for (const float logit : logits) total += std::exp(static_cast<double>(logit));
        return logits[k] - std::log(total);
    }
    double offset(std::size_t k) const {
        double value = 0;
        for (std::size_t j = 0; j < latent; ++j) value -= v(k, j) / 2;
        return value;
    }
    // log N(z; m, exp(v)) − log N(z; 0, 1), from the densities themselves. Of the kernel's two
    // factors of a term each has roundings of its own terms' sizes.
    Bound exponent(std::size_t r, std::size_t k) const {
        Sum sum;
        for (std::size_t j = 0; j < latent; ++j) {
            const double code = z[r * latent + j];
            const double s = std::exp(-v(k, j) / 2);
            const double d = distance(r, k, j);
            sum.add((code * code - s * s * d * d) / 2,
                    (s * std::abs(m(k, j)) + std::abs(1 - s) * std::abs(code)) *
                        (std::abs(code) + s * std::abs(d)) / 2);
        }
        const Bound terms = sum.within(kMixtureRoundings);
        const double value = offset(k) + terms.value;
        return {value, terms.tolerance + kEpsilon * (std::abs(offset(k)) + 2 * std::abs(value))};
    }

    MixtureShape shape;
    std::size_t rows, components, latent;
    bool is_heads;
    std::size_t stride;
    std::vector<float> mean, logvar, mean_bias, logvar_bias, logits, z, weight, log_ratio;
};

// gamma of one code and log p(z) − log N(z; 0, I), with what their errors may be.
struct Posterior {
    Posterior(const Mixture& in, std::size_t r) {
        std::vector<Bound> exponents;  // with the weight
        double top = -INFINITY;
        for (std::size_t k = 0; k < in.components; ++k) {
            exponents.push_back(in.exponent(r, k));
            exponents.back().value += in.log_weight(k);
            top = std::max(top, exponents.back().value);
        }
        double total = 0;
        double error = 0;
        for (const Bound& exponent : exponents) {
            total += std::exp(exponent.value - top);
            // What is far below the top is off by more, and weighs less than that.
            if (exponent.value > top - 40) error = std::max(error, exponent.tolerance);
        }
        const double value = top + std::log(total);
        relative = {value, error + kEpsilon * std::abs(value)};
        for (const Bound& exponent : exponents) {
            const double own = std::exp(exponent.value - value);
            gamma.push_back({own, own * (std::expm1(exponent.tolerance + error) + 2 * kEpsilon)});
        }
    }
    Bound relative;
    std::vector<Bound> gamma;
};

}  // namespace vae::test
