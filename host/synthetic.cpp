#include "host/synthetic.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "host/error.h"
#include "host/examples.h"
#include "host/noise.h"

namespace vae {
namespace {

constexpr std::size_t kTrainSize = 6000;
constexpr std::size_t kTestSize = 1000;
constexpr std::size_t kSize = kTrainSize + kTestSize;

// What the steps of the noise's address are used for.
constexpr std::uint32_t kModelStep = 0;
constexpr std::uint32_t kLinearGaussianStep = 1;
constexpr std::uint32_t kBarsStep = 2;

NoiseAddress address(std::uint32_t step, std::size_t example) {
    return {.seed = 0,
            .purpose = Purpose::synthetic_data,
            .step = step,
            .example = static_cast<std::uint32_t>(example)};
}

Dataset linear_gaussian_examples() {
    const LinearGaussian model = linear_gaussian_model();
    std::vector<float> values;
    values.reserve(kSize * model.pixels);
    std::vector<double> noise(model.latent + model.pixels);
    for (std::size_t i = 0; i < kSize; ++i) {
        fill_normal(address(kLinearGaussianStep, i), noise);
        for (std::size_t p = 0; p < model.pixels; ++p) {
            double x = model.bias[p] + model.sigma * noise[model.latent + p];
            for (std::size_t j = 0; j < model.latent; ++j) {
                x += model.weight[p * model.latent + j] * noise[j];
            }
            values.push_back(static_cast<float>(x));
        }
    }
    return make_dataset(std::array{kSize, model.pixels}, std::move(values), "linear-gaussian");
}

Dataset bars_examples() {
    constexpr std::size_t kSide = 8;
    constexpr float kProbability = 0.125f;
    std::vector<std::uint8_t> values;
    values.reserve(kSize * kSide * kSide);
    std::array<float, 2 * kSide> uniforms = {};
    for (std::size_t i = 0; i < kSize; ++i) {
        fill_uniform(address(kBarsStep, i), uniforms);
        for (std::size_t row = 0; row < kSide; ++row) {
            for (std::size_t column = 0; column < kSide; ++column) {
                const bool on =
                    uniforms[row] <= kProbability || uniforms[kSide + column] <= kProbability;
                values.push_back(on ? 255 : 0);
            }
        }
    }
    return make_dataset(std::array{kSize, kSide, kSide}, std::move(values), "bars");
}

}  // namespace

LinearGaussian linear_gaussian_model() {
    LinearGaussian model;
    const std::size_t weights = model.pixels * model.latent;
    std::vector<double> normals(weights + model.pixels);
    fill_normal(address(kModelStep, 0), normals);
    const auto middle = normals.begin() + static_cast<std::ptrdiff_t>(weights);
    model.weight.assign(normals.begin(), middle);
    model.bias.assign(middle, normals.end());
    return model;
}

SyntheticSet synthetic_set(const std::string& name) {
    SyntheticSet set;
    if (name == "linear-gaussian") {
        set.train = linear_gaussian_examples();
    } else if (name == "bars") {
        set.train = bars_examples();
    } else {
        throw InputError(
            fmt::format("no synthetic data set '{}': there are linear-gaussian and bars", name));
    }
    set.test = part_of_examples(set.train, kTrainSize, kSize);
    keep_first(set.train, kTrainSize);
    return set;
}

}  // namespace vae
