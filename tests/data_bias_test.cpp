// Initial biases that know the data's mean, and what the network makes of them.
#include "host/data_bias.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "host/train.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 6;
constexpr std::size_t kExamples = 40;

Dataset bytes() {
    Dataset data = test::random_bytes(kExamples, kPixels);
    test::change_values<std::uint8_t>(data, [](std::vector<std::uint8_t>& values) {
        for (std::size_t i = 0; i < kExamples; ++i) {
            values[i * kPixels] = 0;        // never on
            values[i * kPixels + 1] = 255;  // always on
        }
    });
    return data;
}

Config config_of(Activation activation, Likelihood likelihood, bool is_deep) {
    Config config;
    config.model.activation = activation;
    config.model.likelihood = likelihood;
    config.model.encoder_hidden.clear();
    if (is_deep) config.model.encoder_hidden = {5, 4};
    config.model.decoder_hidden = config.model.encoder_hidden;
    config.model.latent = 3;
    config.train.batch = kExamples;
    return config;
}

TEST(PixelMeans, AreThoseOfBytesAndOfFloats) {
    const Dataset data = bytes();
    const auto& values = std::get<ByteValues>(data.values);
    const auto means = pixel_means(data);
    ASSERT_EQ(means.size(), kPixels);
    for (std::size_t c = 0; c < kPixels; ++c) {
        unsigned sum = 0;
        for (std::size_t i = 0; i < kExamples; ++i) sum += values[i * kPixels + c];
        EXPECT_NEAR(means[c], sum / 255.0 / kExamples, 1e-15);
    }
    EXPECT_EQ(means[0], 0);
    EXPECT_EQ(means[1], 1);
    Dataset floats;
    floats.shape.width = 2;
    floats.size = 2;
    floats.values = std::vector<float>{0.25F, -3, 0.75F, 1};
    EXPECT_EQ(pixel_means(floats), (std::vector<double>{0.5, -1}));
}

TEST(DataBias, OutputsStartAtTheLinkOfTheMean) {
    Splits splits;
    splits.train = bytes();
    const auto means = pixel_means(splits.train);
    for (const auto likelihood : {Likelihood::bernoulli, Likelihood::gaussian}) {
        Config config = config_of(Activation::relu, likelihood, true);
        config.model.data_bias = true;
        const Checkpoint start = initial_checkpoint(config, splits);
        const float* bias = start.state.parameters.data() + start.layout().output.bias.offset;
        for (std::size_t c = 0; c < kPixels; ++c) {
            const auto value = static_cast<double>(bias[c]);
            if (likelihood == Likelihood::gaussian) {
                EXPECT_NEAR(value, means[c], 1e-7);  // one rounding to float
            } else if (c < 2) {
                EXPECT_NEAR(value, (c == 0 ? -1 : 1) * std::log(2 * kExamples - 1.0), 1e-6);
            } else {
                EXPECT_NEAR(1 / (1 + std::exp(-value)), means[c], 1e-7);
            }
        }
    }
}

// What the likelihood's mean is where the rest of the output is zero.
std::vector<float> starting_mean(Config config, const Splits& splits) {
    config.model.data_bias = true;
    Checkpoint start = initial_checkpoint(config, splits);
    const Tensor& weight = start.layout().output.weight;
    std::fill_n(start.state.parameters.begin() + static_cast<std::ptrdiff_t>(weight.offset),
                weight.size, 0.0F);
    const auto backend = make_cpu_double_backend(config, start.layout());
    backend->set_state(start.state);
    return backend->decode(std::vector<float>(config.model.latent, 0.5F));
}

Splits splits_in_support(const ModelConfig& model) {
    Splits splits;
    splits.train = test::in_support(test::random_floats(kExamples, kPixels), model);
    return splits;
}

TEST(DataBias, TheStartingMeanIsThatOfTheData) {
    for (const auto likelihood :
         {Likelihood::bernoulli, Likelihood::gaussian, Likelihood::onehot, Likelihood::poisson}) {
        Config config = config_of(Activation::relu, likelihood, true);
        config.model.levels = 3;
        const Splits splits = splits_in_support(config.model);
        const auto means = pixel_means(splits.train);
        const auto start = starting_mean(config, splits);
        ASSERT_EQ(start.size(), kPixels);
        for (std::size_t c = 0; c < kPixels; ++c) {
            ASSERT_GT(means[c], 0.5 / kExamples);
            EXPECT_NEAR(start[c], means[c], 1e-6 * (1 + means[c]));  // of the bias in float
        }
    }
}

TEST(DataBias, BytesAsCountsStartAtTheirMean) {
    Splits splits;
    splits.train = bytes();
    splits.train.bytes_are_counts = true;
    const auto means = pixel_means(splits.train);
    EXPECT_EQ(means[1], 255);
    const auto start =
        starting_mean(config_of(Activation::relu, Likelihood::poisson, true), splits);
    EXPECT_NEAR(start[0], 0.5 / kExamples, 1e-6);  // never met: half an example
    for (std::size_t c = 1; c < kPixels; ++c) EXPECT_NEAR(start[c], means[c], 1e-5 * means[c]);
}

// Logits are the logs of how often a level is met, each half an example more often.
TEST(DataBias, CategoriesStartAtTheirFrequencies) {
    constexpr std::uint32_t kLevels = 4;
    Config config = config_of(Activation::relu, Likelihood::categorical, true);
    config.model.levels = kLevels;
    config.model.data_bias = true;
    const Splits splits = splits_in_support(config.model);
    const auto& values = std::get<FloatValues>(splits.train.values);
    const Checkpoint start = initial_checkpoint(config, splits);
    const float* bias = start.state.parameters.data() + start.layout().output.bias.offset;
    const auto mean = starting_mean(config, splits);
    for (std::size_t c = 0; c < kPixels; ++c) {
        double expected = 0;
        for (std::uint32_t k = 0; k < kLevels; ++k) {
            double count = 0.5;
            for (std::size_t i = 0; i < kExamples; ++i) {
                count += std::lround(values[i * kPixels + c] * 3) == static_cast<long>(k) ? 1 : 0;
            }
            const double frequency = count / (kExamples + 0.5 * kLevels);
            EXPECT_NEAR(bias[c * kLevels + k], std::log(frequency), 1e-6);
            expected += frequency * k / (kLevels - 1);
        }
        EXPECT_NEAR(mean[c], expected, 1e-6);
    }
}

// m starts as the mean; scales start as without.
TEST(DataBias, TheFirstOutputsOfPixelsWithAScale) {
    for (const auto likelihood : {Likelihood::logistic, Likelihood::gaussian}) {
        Config config = config_of(Activation::relu, likelihood, true);
        config.model.levels = 5;
        if (likelihood == Likelihood::gaussian) config.model.variance = Variance::pixel;
        const Splits splits = splits_in_support(config.model);
        const auto means = pixel_means(splits.train);
        const Checkpoint plain = initial_checkpoint(config, splits);
        config.model.data_bias = true;
        const Checkpoint start = initial_checkpoint(config, splits);
        const std::size_t at = start.layout().output.bias.offset;
        for (std::size_t c = 0; c < kPixels; ++c) {
            EXPECT_NEAR(start.state.parameters[at + c], means[c], 1e-7);
            EXPECT_EQ(start.state.parameters[at + kPixels + c],
                      plain.state.parameters[at + kPixels + c]);
        }
    }
}

// Of counts the encoder sees logarithms, so it is their mean that is taken off.
TEST(DataBias, TheFirstLayerSeesCentredLogCounts) {
    Splits splits;
    splits.train = bytes();
    splits.train.bytes_are_counts = true;
    const auto& values = std::get<ByteValues>(splits.train.values);
    std::vector<float> centre;  // counts whose logarithms are the mean
    for (std::size_t c = 0; c < kPixels; ++c) {
        double sum = 0;
        for (std::size_t i = 0; i < kExamples; ++i) sum += std::log2(1.0 + values[i * kPixels + c]);
        centre.push_back(static_cast<float>(std::exp2(sum / kExamples) - 1));
    }
    Config config = config_of(Activation::tanh, Likelihood::poisson, true);
    const auto posterior_of = [&](const std::vector<float>& x) {
        const Checkpoint start = initial_checkpoint(config, splits);
        const auto backend = make_cpu_double_backend(config, start.layout());
        backend->set_state(start.state);
        return backend->encode(x);
    };
    const Posterior plain = posterior_of(std::vector<float>(kPixels, 0.0F));
    config.model.data_bias = true;
    const Posterior centred = posterior_of(centre);
    for (std::size_t j = 0; j < 3; ++j) {
        EXPECT_NEAR(centred.mu[j], plain.mu[j], 1e-6);
        EXPECT_NEAR(centred.logvar[j], plain.logvar[j], 1e-6);
    }
}

// An example equal to the mean is seen as zero: what the first layer makes of it is what it makes
// of zeros without the shift, its bias alone.
TEST(DataBias, TheFirstLayerSeesCentredData) {
    Splits splits;
    splits.train = bytes();
    const auto means = pixel_means(splits.train);
    for (const bool is_deep : {true, false}) {
        for (const auto activation : {Activation::tanh, Activation::gated}) {
            Config config = config_of(activation, Likelihood::gaussian, is_deep);
            const auto posterior_of = [&](const std::vector<float>& x) {
                const Checkpoint start = initial_checkpoint(config, splits);
                const auto backend = make_cpu_double_backend(config, start.layout());
                backend->set_state(start.state);
                return backend->encode(x);
            };
            const Posterior plain = posterior_of(std::vector<float>(kPixels, 0.0F));
            config.model.data_bias = true;
            const Posterior centred = posterior_of({means.begin(), means.end()});
            ASSERT_EQ(centred.mu.size(), 3U);
            for (std::size_t j = 0; j < 3; ++j) {
                EXPECT_NEAR(centred.mu[j], plain.mu[j], 1e-6);  // roundings of numbers below 1
                EXPECT_NEAR(centred.logvar[j], plain.logvar[j], 1e-6);
            }
        }
    }
}

TEST(DataBias, NothingElseChanges) {
    Splits splits;
    splits.train = bytes();
    for (const auto activation : {Activation::relu, Activation::gated}) {
        Config config = config_of(activation, Likelihood::bernoulli, true);
        const Checkpoint plain = initial_checkpoint(config, splits);
        config.model.data_bias = true;
        const Checkpoint biased = initial_checkpoint(config, splits);
        for (const Tensor& tensor : plain.layout().tensors()) {
            const auto begin = static_cast<std::ptrdiff_t>(tensor.offset);
            const auto end = begin + static_cast<std::ptrdiff_t>(tensor.size);
            const bool is_same = std::equal(plain.state.parameters.begin() + begin,
                                            plain.state.parameters.begin() + end,
                                            biased.state.parameters.begin() + begin);
            const bool is_set = tensor.name == "decoder.out.bias" ||
                                tensor.name == "encoder.0.bias" ||
                                tensor.name == "encoder.0.gate.bias";
            EXPECT_EQ(is_same, !is_set) << tensor.name;
        }
    }
}

TEST(DataBias, TheFirstLossIsNearThatOfIndependentPixels) {
    Splits splits;
    splits.train = bytes();
    Config config = config_of(Activation::relu, Likelihood::bernoulli, true);
    const auto recon_of = [&] {
        const Checkpoint start = initial_checkpoint(config, splits);
        const auto backend = make_cpu_double_backend(config, start.layout());
        backend->set_data(splits);
        backend->set_state(start.state);
        return backend->evaluate(Split::train, 1).recon / kExamples;
    };
    const double plain = recon_of();
    config.model.data_bias = true;
    EXPECT_LT(recon_of(), plain - 1);  // two of six pixels, at ln 2 each, are known now
}

}  // namespace
}  // namespace vae
