// Inputs and double references of the reparameterisation's kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "host/noise.h"
#include "kernels/reparameterize.h"
#include "tests/kernel_reference.h"

namespace vae::test {

inline constexpr float kLow = -6.0f;
inline constexpr float kHigh = 2.0f;
inline constexpr float kKlScale = 0.41f;
inline constexpr float kScale = 0.73f;                     // of ratio and score
inline constexpr std::uint32_t kFirstIndex = 4294967000u;  // some examples wrap around

// stride >= latent; multiples of 4 take the wide path.
struct HeadsShape {
    int examples = 0;
    int latent = 0;
    int stride = 0;
    int samples = 1;
    bool is_weighted = false;  // every draw has weights of its own, every dimension its kl_mask
    bool has_prior = false;    // the prior's score is given

    std::size_t rows() const {
        return static_cast<std::size_t>(examples) * static_cast<std::size_t>(samples);
    }
};

inline std::vector<HeadsShape> all_shapes() {
    constexpr std::array<std::pair<int, int>, 15> kWidths = {{{0, 0},
                                                              {0, 4},
                                                              {1, 1},
                                                              {1, 4},
                                                              {20, 20},
                                                              {20, 64},
                                                              {21, 21},
                                                              {31, 32},
                                                              {32, 32},
                                                              {33, 33},
                                                              {50, 64},
                                                              {101, 104},
                                                              {127, 127},
                                                              {128, 128},
                                                              {300, 301}}};
    std::vector<HeadsShape> shapes;
    for (const int examples : {0, 1, 31, 32, 33, 101, 127, 128, 129}) {
        for (const auto& [latent, stride] : kWidths) shapes.push_back({examples, latent, stride});
    }
    for (const int examples : {0, 1, 5, 33}) {
        for (const auto& [latent, stride] : kWidths) {
            shapes.push_back({examples, latent, stride, 1, true});
            shapes.push_back({examples, latent, stride, 3, false});
            shapes.push_back({examples, latent, stride, 7, true});
            shapes.push_back({examples, latent, stride, 1, true, true});
            shapes.push_back({examples, latent, stride, 3, true, true});
            shapes.push_back({examples, latent, stride, examples == 5 ? 35 : 16, examples == 5});
        }
    }
    shapes.push_back({8200, 2, 4});
    shapes.push_back({20, 50, 64, 50, true});
    shapes.push_back({1100, 60, 61, 16, true});  // a warp takes two examples
    return shapes;
}

inline kernels::NoiseStream noise_stream() {
    return {.seed = 0xfedcba9876543210u,
            .purpose = static_cast<std::uint32_t>(Purpose::epsilon),
            .step = 77,
            .sample = 5};
}

inline kernels::EpsilonSource source_of(const std::uint32_t* index) {
    return {noise_stream(), index, kFirstIndex};
}

// Inputs and double references of one shape. `b` counts examples, `r` draws.
struct Heads {
    explicit Heads(const HeadsShape& s)
        : shape(s),
          latent{s.examples, s.latent},
          draws{static_cast<int>(s.rows()), s.latent},
          pitch(2 * static_cast<std::size_t>(s.stride)),
          product(random_normals(latent.height() * pitch, 1, 2.0f)),
          mu_bias(random_normals(latent.width(), 2)),
          logvar_bias(random_normals(latent.width(), 3)),
          d_z(random_normals(draws.size(), 4)),
          path(random_normals(s.rows(), 5)),
          ratio(random_normals(s.rows(), 6)),
          score(random_normals(s.rows(), 7)),
          kl_mask(random_uniforms(latent.width(), 8)),
          prior_score(random_normals(draws.size(), 9)),
          index(latent.height()) {
        // Without a bias the boundary is hit exactly.
        for (std::size_t j = 0; j < logvar_bias.size(); j += 2) logvar_bias[j] = 0;
        for (std::size_t j = 0; j < kl_mask.size(); j += 3) kl_mask[j] = 0;
        for (std::size_t b = 0; b < index.size(); ++b) {
            index[b] = static_cast<std::uint32_t>(b * 7 % 1000);
            // Far outside, and exactly on both boundaries, where the gradient still flows.
            for (std::size_t j = 0; j < latent.width(); ++j) {
                float& logvar = product[b * pitch + stride() + j];
                switch ((b + 3 * j) % 11) {
                    case 0:
                        logvar = 200;
                        break;
                    case 1:
                        logvar = -200;
                        break;
                    case 2:
                        logvar = kLow - logvar_bias[j];
                        break;
                    case 3:
                        logvar = kHigh - logvar_bias[j];
                        break;
                    default:
                        break;
                }
            }
        }
    }

    std::size_t stride() const { return static_cast<std::size_t>(shape.stride); }
    std::size_t samples() const { return static_cast<std::size_t>(shape.samples); }
    // The kernel's own float sums.
    double mu(std::size_t b, std::size_t j) const { return product[b * pitch + j] + mu_bias[j]; }
    double unclamped(std::size_t b, std::size_t j) const {
        return product[b * pitch + stride() + j] + logvar_bias[j];
    }
    double logvar(std::size_t b, std::size_t j) const {
        return std::clamp<double>(unclamped(b, j), kLow, kHigh);
    }
    double sigma(std::size_t b, std::size_t j) const { return std::exp(logvar(b, j) / 2); }

    // What draw r adds to d (the gradient that comes through z) of element j, times `factor`. Each
    // term has at most 5 products, and exponentials good to 2 units (5 roundings).
    void add_path(std::size_t r, std::size_t j, double epsilon, double factor, Sum& sum) const {
        const std::size_t b = r / samples();
        const double own = shape.is_weighted ? path[r] : 1;
        sum.add(factor * own * d_z[r * latent.width() + j]);
        if (!shape.is_weighted) return;
        const double weight = factor * kScale * ratio[r];
        if (shape.has_prior) {
            sum.add(-weight * prior_score[r * latent.width() + j]);
        } else {
            sum.add(weight * mu(b, j));
            sum.add(weight * sigma(b, j) * epsilon);
        }
        sum.add(-weight * epsilon / sigma(b, j));
    }
    double kl_scale(std::size_t j) const {
        return shape.is_weighted ? static_cast<double>(kKlScale) * kl_mask[j] : kKlScale;
    }
    // Roundings of each term: its own, and one for each sum that it is part of.
    double roundings() const { return 17 + static_cast<double>(samples()); }

    Bound d_mu(std::size_t b, std::size_t j, const std::vector<float>& epsilon) const {
        Sum sum;
        sum.add(kl_scale(j) * mu(b, j));
        for (std::size_t r = b * samples(); r < (b + 1) * samples(); ++r) {
            const double e = epsilon[r * latent.width() + j];
            add_path(r, j, e, 1, sum);
            if (shape.is_weighted) sum.add(kScale * score[r] * e / sigma(b, j));
        }
        return sum.within(roundings());
    }
    Bound d_logvar(std::size_t b, std::size_t j, const std::vector<float>& epsilon) const {
        if (unclamped(b, j) < kLow || unclamped(b, j) > kHigh) return {0, 0};
        Sum sum;
        sum.add(kl_scale(j) * std::expm1(logvar(b, j)) / 2);
        for (std::size_t r = b * samples(); r < (b + 1) * samples(); ++r) {
            const double e = epsilon[r * latent.width() + j];
            add_path(r, j, e, sigma(b, j) * e / 2, sum);
            if (!shape.is_weighted) continue;
            sum.add(kScale * score[r] * e * e / 2);
            sum.add(-kScale * score[r] / 2.0);
        }
        return sum.within(roundings());
    }

    HeadsShape shape;
    Shape latent;
    Shape draws;
    std::size_t pitch;
    std::vector<float> product;
    std::vector<float> mu_bias;
    std::vector<float> logvar_bias;
    std::vector<float> d_z;
    std::vector<float> path;
    std::vector<float> ratio;
    std::vector<float> score;
    std::vector<float> kl_mask;
    std::vector<float> prior_score;
    std::vector<std::uint32_t> index;
};

}  // namespace vae::test
