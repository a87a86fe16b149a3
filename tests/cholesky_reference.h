// Inputs and double references of the kernels of a posterior with a full covariance.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "kernels/cholesky_posterior.h"
#include "tests/kernel_reference.h"
#include "tests/reparameterize_reference.h"

namespace vae::test {

struct CholeskyShape {
    int examples = 0;
    int latent = 0;
    bool is_padded =
        true;  // strides are multiples of 8, for the wide path; else there is no padding
    int samples = 1;
    bool is_weighted = false;  // every draw has weights of its own, every dimension its kl_mask
    bool has_prior = false;    // with a prior_score
    float tril_scale = 0.5f;   // of a row of L without its diagonal

    int padded(int size) const { return is_padded ? (size + 7) / 8 * 8 : size; }
    int stride() const { return padded(latent); }
    int tril_stride() const { return padded(kernels::tril_size(latent)); }
    int pitch() const { return 2 * stride() + tril_stride(); }
    std::size_t rows() const {
        return static_cast<std::size_t>(examples) * static_cast<std::size_t>(samples);
    }
    // Of L's entries, so that the errors of the solution with it stay far below its values.
    float element_scale() const {
        return tril_scale / std::sqrt(static_cast<float>(std::max(latent, 1)));
    }
};

// A value and a bound of a float result's error, both of which go on into what is made of it.
struct Approximate {
    double value = 0;
    double error = 0;
};

// `b` counts examples, `r` draws, i and j the rows and columns of L.
struct CholeskyInputs {
    explicit CholeskyInputs(const CholeskyShape& s)
        : shape(s),
          latent{s.examples, s.latent},
          tril{s.examples, kernels::tril_size(s.latent)},
          draws{static_cast<int>(s.rows()), s.latent},
          pitch(static_cast<std::size_t>(s.pitch())),
          product(random_normals(latent.height() * pitch, 1)),
          mu_bias(random_normals(latent.width(), 2)),
          logvar_bias(random_normals(latent.width(), 3, 0.5f)),
          tril_bias(random_normals(tril.width(), 9, s.element_scale())),
          d_z(random_normals(draws.size(), 4)),
          path(random_normals(s.rows(), 5)),
          ratio(random_normals(s.rows(), 6)),
          score(random_normals(s.rows(), 7)),
          prior_score(random_normals(draws.size(), 10)),
          kl_mask(random_uniforms(latent.width(), 8)),
          index(latent.height()) {
        // Some log-variances far outside of the range, and some biases of zero.
        for (std::size_t j = 0; j < logvar_bias.size(); j += 2) logvar_bias[j] = 0;
        for (std::size_t b = 0; b < index.size(); ++b) {
            index[b] = static_cast<std::uint32_t>(b * 7 % 1000);
            for (std::size_t j = 0; j < latent.width(); ++j) {
                float& logvar = product[b * pitch + stride() + j];
                const std::size_t kind = (b + 3 * j) % 11;
                if (kind == 0) logvar = 200;
                if (kind == 1) logvar = kCholeskyHigh - logvar_bias[j];  // on the bound
                if (kind == 2) logvar = -200;
            }
            for (std::size_t k = 0; k < tril.width(); ++k) {
                product[b * pitch + 2 * stride() + k] *= s.element_scale();
            }
        }
        for (std::size_t j = 0; j < kl_mask.size(); j += 3) kl_mask[j] = 0;
    }

    // Narrower than elsewhere: the solution with L grows with what it is divided by.
    static constexpr float kCholeskyLow = -0.5f;
    static constexpr float kCholeskyHigh = 1.0f;

    std::size_t stride() const { return static_cast<std::size_t>(shape.stride()); }
    std::size_t samples() const { return static_cast<std::size_t>(shape.samples); }
    static std::size_t start(std::size_t i) { return i == 0 ? 0 : i * (i - 1) / 2; }
    // The kernel's own float sums.
    double mu(std::size_t b, std::size_t i) const { return product[b * pitch + i] + mu_bias[i]; }
    double unclamped(std::size_t b, std::size_t i) const {
        return product[b * pitch + stride() + i] + logvar_bias[i];
    }
    double logvar(std::size_t b, std::size_t i) const {
        return std::clamp<double>(unclamped(b, i), kCholeskyLow, kCholeskyHigh);
    }
    bool is_outside(std::size_t b, std::size_t i) const {
        return unclamped(b, i) < kCholeskyLow || unclamped(b, i) > kCholeskyHigh;
    }
    double below(std::size_t b, std::size_t k) const {
        return product[b * pitch + 2 * stride() + k] + tril_bias[k];
    }
    // L, and L − I without the cancellation.
    double l(std::size_t b, std::size_t i, std::size_t j) const {
        return i == j ? std::exp(logvar(b, i) / 2) : below(b, start(i) + j);
    }
    double l_minus_one(std::size_t b, std::size_t i, std::size_t j) const {
        return i == j ? std::expm1(logvar(b, i) / 2) : below(b, start(i) + j);
    }
    double kl_scale(std::size_t i) const {
        return shape.is_weighted ? static_cast<double>(kKlScale) * kl_mask[i] : kKlScale;
    }

    // L⁻ᵀ·epsilon of draw r. Each step of the substitution rounds as often as it has terms, and
    // passes the errors of the elements behind on.
    std::vector<Approximate> solution(std::size_t r, const std::vector<float>& epsilon) const {
        const std::size_t width = latent.width();
        const std::size_t b = r / samples();
        std::vector<Approximate> u(width);
        for (std::size_t i = width; i-- > 0;) {
            double value = epsilon[r * width + i];
            double size = std::abs(value);
            double passed = 0;
            for (std::size_t j = i + 1; j < width; ++j) {
                value -= l(b, j, i) * u[j].value;
                size += std::abs(l(b, j, i) * u[j].value);
                passed += std::abs(l(b, j, i)) * u[j].error;
            }
            const double roundings = static_cast<double>(width - i) + 6;
            u[i] = {value / l(b, i, i), (passed + roundings * kEpsilon * size) / l(b, i, i)};
        }
        return u;
    }

    // g of the header: what the kernel leaves in `draws`.
    std::vector<Approximate> gradient_of_draws(const std::vector<float>& epsilon,
                                               const std::vector<float>& z) const {
        const std::size_t width = latent.width();
        std::vector<Approximate> g(draws.size());
        for (std::size_t r = 0; r < draws.height(); ++r) {
            const auto u = solution(r, epsilon);
            for (std::size_t i = 0; i < width; ++i) {
                const std::size_t at = r * width + i;
                if (!shape.is_weighted) {
                    g[at] = {d_z[at], 0};
                    continue;
                }
                const double by_ratio = static_cast<double>(kScale) * ratio[r];
                const double by_score = static_cast<double>(kScale) * score[r];
                Sum sum;
                sum.add(static_cast<double>(path[r]) * d_z[at]);
                sum.add(by_ratio * (shape.has_prior ? -prior_score[at] : z[at]));
                sum.add(-by_ratio * u[i].value);
                sum.add(by_score * u[i].value);
                g[at] = {sum.value, 6 * kEpsilon * sum.magnitude +
                                        (std::abs(by_ratio) + std::abs(by_score)) * u[i].error};
            }
        }
        return g;
    }

    CholeskyShape shape;
    Shape latent;
    Shape tril;
    Shape draws;
    std::size_t pitch;
    std::vector<float> product;
    std::vector<float> mu_bias;
    std::vector<float> logvar_bias;
    std::vector<float> tril_bias;
    std::vector<float> d_z;
    std::vector<float> path;
    std::vector<float> ratio;
    std::vector<float> score;
    std::vector<float> prior_score;
    std::vector<float> kl_mask;
    std::vector<std::uint32_t> index;
};

}  // namespace vae::test
