// Draws examples x ~ p(x|z) from the decoder's outputs, on the host and in double, whatever backend
// computed them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "host/config.h"
#include "host/parameters.h"

namespace vae {

// Uniforms in (0, 1) of 53 bits for one pixel: pixel c of example i takes block c of the noise
// addressed by (seed, likelihood_sample, attempt, i). So an example depends on no other, and a
// sampler that rejects goes on to the next attempt.
class PixelNoise {
  public:
    PixelNoise(std::uint64_t seed, std::uint32_t example, std::uint32_t pixel)
        : seed_(seed), example_(example), pixel_(pixel) {}

    struct Pair {
        double first;
        double second;
    };
    Pair next();

  private:
    std::uint64_t seed_;
    std::uint32_t example_;
    std::uint32_t pixel_;
    std::uint32_t attempt_ = 0;
};

// The samplers, exact to the rounding of the uniforms.
double draw_normal(PixelNoise& noise);
double draw_logistic(PixelNoise& noise);
// k with probability proportional to exp(logits[k]).
std::size_t draw_class(std::span<const float> logits, PixelNoise& noise);
// By inversion below a rate of 10, else by transformed rejection (Hörmann 1993, PTRS).
double draw_poisson(double rate, PixelNoise& noise);

class LikelihoodSampler {
  public:
    // parameters: an arena of the layout, for decoder.logvar.
    LikelihoodSampler(const ModelConfig& model, const ParameterLayout& layout,
                      std::span<const float> parameters, std::uint64_t seed);

    // outputs[rows, layout.output.out] of Backend::outputs -> x[rows, pixels]; row r is example
    // first + r of the noise.
    std::vector<float> draw(std::span<const float> outputs, std::uint32_t first) const;

  private:
    void draw_row(const float* outputs, std::uint32_t example, float* x) const;
    void draw_softmax(const float* outputs, std::uint32_t example, float* x) const;
    float draw_pixel(const float* outputs, std::size_t pixel, PixelNoise noise) const;

    ModelConfig model_;
    std::size_t pixels_;
    std::size_t width_;
    double sigma_ = 0;  // of a Gaussian with one variance of all pixels
    std::uint64_t seed_;
};

}  // namespace vae
