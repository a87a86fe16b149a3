#include "host/parameters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "host/error.h"
#include "host/noise.h"

namespace vae {
namespace {

ModelConfig model_of(std::vector<std::uint32_t> encoder, std::uint32_t latent,
                     std::vector<std::uint32_t> decoder) {
    ModelConfig model;
    model.encoder_hidden = std::move(encoder);
    model.latent = latent;
    model.decoder_hidden = std::move(decoder);
    return model;
}

std::vector<std::string> names_of(const ParameterLayout& layout) {
    std::vector<std::string> names;
    for (const Tensor& tensor : layout.tensors()) names.push_back(tensor.name);
    return names;
}

// What every layout must satisfy.
void check_layout(const ParameterLayout& layout) {
    std::size_t end = 0;
    for (const Tensor& tensor : layout.tensors()) {
        SCOPED_TRACE(tensor.name);
        EXPECT_EQ(tensor.offset % 64, 0U);  // 256 bytes of float
        EXPECT_GE(tensor.offset, end);      // in arena order, none overlapping
        EXPECT_GT(tensor.size, 0U);
        EXPECT_EQ(tensor.size, std::accumulate(tensor.shape.begin(), tensor.shape.end(),
                                               std::size_t{1}, std::multiplies<>()));
        end = tensor.offset + tensor.size;
    }
    EXPECT_LE(end, layout.arena_size);
    EXPECT_EQ(layout.arena_size % 64, 0U);
    const Heads& heads = layout.heads;
    EXPECT_GE(heads.stride, heads.latent);
    EXPECT_EQ(heads.logvar_weight.offset, heads.mu_weight.offset + heads.stride * heads.in);
    // The joint matrix, its last padding rows included, ends before the next tensor begins.
    EXPECT_GE(heads.mu_bias.offset, heads.mu_weight.offset + 2 * heads.stride * heads.in);
    for (std::size_t less = heads.latent; less < heads.stride; ++less) {
        EXPECT_TRUE(less % 8 != 0 || less * heads.in % 64 != 0) << "stride is not the least";
    }
}

TEST(Parameters, LayoutOfTheDefaultModel) {
    const ParameterLayout layout(ModelConfig{}, 784);
    check_layout(layout);
    EXPECT_EQ(names_of(layout),
              (std::vector<std::string>{"encoder.0.weight", "encoder.0.bias", "encoder.mu.weight",
                                        "encoder.logvar.weight", "encoder.mu.bias",
                                        "encoder.logvar.bias", "decoder.0.weight", "decoder.0.bias",
                                        "decoder.out.weight", "decoder.out.bias"}));
    EXPECT_EQ(layout.pixels, 784U);
    EXPECT_EQ(layout.encoder[0].weight.shape, (std::vector<std::size_t>{400, 784}));
    EXPECT_EQ(layout.heads.mu_weight.shape, (std::vector<std::size_t>{20, 400}));
    EXPECT_EQ(layout.heads.logvar_bias.shape, (std::vector<std::size_t>{20}));
    EXPECT_EQ(layout.heads.stride, 24U);  // the multiple of 8 that is next to 20
    EXPECT_EQ(layout.output.weight.shape, (std::vector<std::size_t>{784, 400}));
    std::size_t parameters = 0;
    for (const Tensor& tensor : layout.tensors()) parameters += tensor.size;
    EXPECT_EQ(parameters, 652824U);
}

TEST(Parameters, LayoutOfRaggedModels) {
    const ParameterLayout deep(model_of({5, 3}, 2, {3, 5}), 7);
    check_layout(deep);
    EXPECT_EQ(deep.heads.stride, 64U);  // 3 is odd
    EXPECT_EQ(deep.encoder[1].weight.shape, (std::vector<std::size_t>{3, 5}));
    EXPECT_EQ(deep.decoder[0].weight.shape, (std::vector<std::size_t>{3, 2}));
    for (const std::uint32_t width : {1U, 2U, 31U, 32U, 33U, 64U, 127U}) {
        check_layout(ParameterLayout(model_of({width}, width, {}), width));
    }
}

TEST(Parameters, AGatedLayerIsOneMatrix) {
    ModelConfig model = model_of({5, 3}, 2, {40});
    model.activation = Activation::gated;
    const ParameterLayout layout(model, 7);
    check_layout(layout);
    const std::vector<std::string> names = names_of(layout);
    ASSERT_EQ(names.size(), 18U);
    EXPECT_EQ(std::vector<std::string>(names.begin(), names.begin() + 4),
              (std::vector<std::string>{"encoder.0.weight", "encoder.0.gate.weight",
                                        "encoder.0.bias", "encoder.0.gate.bias"}));
    EXPECT_EQ(names[12], "decoder.0.weight");
    EXPECT_EQ(names[15], "decoder.0.gate.bias");
    EXPECT_EQ(names[16], "decoder.out.weight");
    EXPECT_EQ(layout.encoder[0].stride, 64U);  // 7 is odd
    EXPECT_EQ(layout.decoder[0].stride, 64U);  // 32 rows of 2 are 64 elements
    for (const DenseLayer* layer : {&layout.encoder[0], &layout.encoder[1], &layout.decoder[0]}) {
        EXPECT_EQ(layer->gate_weight.shape, layer->weight.shape);
        EXPECT_EQ(layer->gate_weight.offset, layer->weight.offset + layer->stride * layer->in);
        EXPECT_GE(layer->bias.offset, layer->weight.offset + 2 * layer->stride * layer->in);
        EXPECT_EQ(layer->product_width(), 2 * layer->stride);
    }
    EXPECT_FALSE(layout.output.is_gated());
    EXPECT_EQ(layout.output.product_width(), 7U);
}

TEST(Parameters, AFullCovarianceIsAThirdBlockOfTheHeads) {
    for (const std::uint32_t latent : {2U, 5U, 20U, 33U}) {
        ModelConfig model = model_of({12}, latent, {9});
        model.posterior = PosteriorCovariance::full;
        const ParameterLayout layout(model, 7);
        check_layout(layout);
        const Heads& heads = layout.heads;
        const std::size_t below = latent * (latent - 1) / 2;
        EXPECT_TRUE(heads.is_full());
        EXPECT_EQ(heads.tril_size(), below);
        EXPECT_EQ(heads.tril_stride, (below + 7) / 8 * 8);
        EXPECT_EQ(heads.product_width(), 2 * heads.stride + heads.tril_stride);
        EXPECT_EQ(heads.tril_weight.name, "encoder.tril.weight");
        EXPECT_EQ(heads.tril_weight.shape, (std::vector<std::size_t>{below, 12}));
        EXPECT_EQ(heads.tril_bias.shape, (std::vector<std::size_t>{below}));
        EXPECT_EQ(heads.tril_weight.offset, heads.mu_weight.offset + 2 * heads.stride * heads.in);
        EXPECT_GE(heads.mu_bias.offset, heads.mu_weight.offset + heads.product_width() * heads.in);
    }
    ModelConfig model = model_of({12}, 1, {9});
    const auto diagonal = names_of(ParameterLayout(model, 7));
    model.posterior = PosteriorCovariance::full;
    EXPECT_EQ(names_of(ParameterLayout(model, 7)), diagonal);  // nothing is below one number
    model.latent = kMostFullLatent + 1;
    EXPECT_THROW(ParameterLayout(model, 7), InputError);
}

// What they are for any layer, times 1/sqrt(latent).
TEST(Parameters, AFullCovarianceStartsNearADiagonalOne) {
    ModelConfig model = model_of({30}, 16, {9});
    model.posterior = PosteriorCovariance::full;
    const ParameterLayout layout(model, 7);
    const std::vector<float> arena = initial_parameters(layout, Initialization::pytorch, 4);
    for (const Tensor& tensor : layout.heads.tensors()) {
        SCOPED_TRACE(tensor.name);
        const double factor = tensor.name.starts_with("encoder.tril") ? 0.25 : 1;
        const double bound = factor / std::sqrt(30.0);
        double most = 0;
        for (std::size_t i = 0; i < tensor.size; ++i) {
            most = std::max(most, std::abs(static_cast<double>(arena[tensor.offset + i])));
        }
        EXPECT_LE(most, bound * (1 + 1e-6));
        // Of 16 or more draws one lies in the upper half, but for one run in 65536; the seed is
        // fixed.
        EXPECT_GT(most, bound / 2);
    }
}

TEST(Parameters, LayoutWithoutHiddenLayers) {
    const ParameterLayout layout(model_of({}, 2, {}), 6);
    check_layout(layout);
    EXPECT_EQ(layout.heads.in, 6U);
    EXPECT_EQ(layout.output.in, 2U);
    EXPECT_EQ(names_of(layout).front(), "encoder.mu.weight");
}

std::string message_of(const ModelConfig& model, std::size_t pixels) {
    try {
        const ParameterLayout layout(model, pixels);
    } catch (const InputError& error) {
        return error.what();
    }
    return "no error";
}

TEST(Parameters, WrongWidthsAreNamed) {
    EXPECT_NE(message_of(model_of({400, 0}, 20, {400}), 784).find("model.encoder_hidden[1] is 0"),
              std::string::npos);
    EXPECT_NE(message_of(model_of({400}, 0, {400}), 784).find("model.latent is 0"),
              std::string::npos);
    EXPECT_NE(message_of(model_of({400}, 20, {0}), 784).find("model.decoder_hidden[0] is 0"),
              std::string::npos);
    EXPECT_NE(message_of(ModelConfig{}, 0).find("pixels of an example is 0"), std::string::npos);
}

TEST(Parameters, TooLargeIsAnErrorAndNeverWraps) {
    constexpr std::uint32_t kMost = 0xFFFFFFFF;
    EXPECT_NE(message_of(model_of({65536, 65536}, 20, {}), 784).find("too large"),
              std::string::npos);
    EXPECT_NE(message_of(model_of({kMost}, 20, {}), 784).find("at most"), std::string::npos);
    EXPECT_NE(message_of(model_of({2147483647}, 2147483647, {}), 784).find("too large"),
              std::string::npos);
    EXPECT_NE(message_of(model_of({}, 2147483647, {}), 2147483647).find("too large"),
              std::string::npos);
    EXPECT_NE(message_of(ModelConfig{}, std::size_t{1} << 40).find("at most"), std::string::npos);
}

std::vector<float> values_of(const std::vector<float>& arena, const Tensor& tensor) {
    const auto begin = arena.begin() + static_cast<std::ptrdiff_t>(tensor.offset);
    return {begin, begin + static_cast<std::ptrdiff_t>(tensor.size)};
}

bool is_bias(const Tensor& tensor) {
    return tensor.shape.size() == 1;
}

TEST(Parameters, ALearnedPriorComesLast) {
    ModelConfig model = model_of({9}, 3, {7});
    const std::vector<std::string> normal = names_of(ParameterLayout(model, 6));
    model.prior_components = 5;
    EXPECT_EQ(names_of(ParameterLayout(model, 6)), normal) << "components of no prior";
    model.prior = Prior::mixture;
    const ParameterLayout mixture(model, 6);
    check_layout(mixture);
    EXPECT_EQ(mixture.prior_mean.shape, (std::vector<std::size_t>{5, 3}));
    EXPECT_EQ(mixture.prior_logvar.shape, (std::vector<std::size_t>{5, 3}));
    EXPECT_EQ(mixture.prior_logits.shape, (std::vector<std::size_t>{5}));
    EXPECT_EQ(names_of(mixture).back(), "prior.logits");
    model.prior = Prior::vamp;
    const ParameterLayout vamp(model, 6);
    check_layout(vamp);
    EXPECT_EQ(vamp.pseudo_inputs.shape, (std::vector<std::size_t>{5, 6}));
    EXPECT_EQ(names_of(vamp).back(), "prior.pseudo_inputs");
    model.prior_components = 0;
    EXPECT_NE(message_of(model, 6).find("model.prior_components is 0"), std::string::npos);
    model.prior_components = 65536;
    EXPECT_NE(message_of(model, 1 << 20).find("prior.pseudo_inputs"), std::string::npos);
}

// What a prior adds leaves the other parameters as they are.
TEST(Initialization, ALearnedPriorStartsAsTheNormalOneIsWide) {
    ModelConfig model = model_of({9}, 3, {7});
    const auto normal = initial_parameters(ParameterLayout(model, 6), Initialization::he, 7);
    model.prior_components = 4000;
    model.prior = Prior::mixture;
    const ParameterLayout mixture(model, 6);
    const auto arena = initial_parameters(mixture, Initialization::he, 7);
    EXPECT_TRUE(std::equal(normal.begin(), normal.end(), arena.begin()));
    double square = 0;
    for (const float value : values_of(arena, mixture.prior_mean)) square += value * value;
    EXPECT_NEAR(square / 12000, 1, 4 * std::sqrt(2.0 / 12000));
    for (const float value : values_of(arena, mixture.prior_logvar)) EXPECT_EQ(value, 0);
    for (const float value : values_of(arena, mixture.prior_logits)) EXPECT_EQ(value, 0);
    model.prior = Prior::vamp;
    const ParameterLayout vamp(model, 6);
    const auto inputs =
        values_of(initial_parameters(vamp, Initialization::he, 7), vamp.pseudo_inputs);
    const auto [least, most] = std::minmax_element(inputs.begin(), inputs.end());
    EXPECT_GT(*least, 0);
    EXPECT_LE(*most, 1);
    EXPECT_LT(*least, 0.01);
    EXPECT_GT(*most, 0.99);
}

TEST(Initialization, PyTorchIsTheFormula) {
    const ParameterLayout layout(ModelConfig{}, 784);
    const auto arena = initial_parameters(layout, Initialization::pytorch, 7);
    // Inputs of the layer of each tensor in layout order.
    const std::vector<double> fan_in = {784, 784, 400, 400, 400, 400, 20, 20, 400, 400};
    const auto tensors = layout.tensors();
    for (std::uint32_t index = 0; index < tensors.size(); ++index) {
        SCOPED_TRACE(tensors[index].name);
        const auto bound = static_cast<float>(1 / std::sqrt(fan_in[index]));
        std::vector<float> expected(tensors[index].size);
        fill_uniform({7, Purpose::initialization, 0, index, 0}, expected);
        for (float& value : expected) value = (2 * value - 1) * bound;
        const auto values = values_of(arena, tensors[index]);
        EXPECT_EQ(values, expected);
        EXPECT_LE(*std::max_element(values.begin(), values.end()), bound);
        EXPECT_GE(*std::min_element(values.begin(), values.end()), -bound);
    }
}

// Mean and variance within four standard errors of what they should be; kurtosis 1.8 for a
// uniform and 3 for a normal distribution gives that of the variance.
void check_moments(const std::vector<float>& values, double variance, double kurtosis) {
    const auto n = static_cast<double>(values.size());
    double sum = 0;
    double squares = 0;
    for (const float value : values) {
        sum += static_cast<double>(value);
        squares += static_cast<double>(value) * static_cast<double>(value);
    }
    EXPECT_NEAR(sum / n, 0, 4 * std::sqrt(variance / n));
    EXPECT_NEAR(squares / n / variance, 1, 4 * std::sqrt((kurtosis - 1) / n));
}

TEST(Initialization, GlorotAndHeHaveTheirMoments) {
    const ParameterLayout layout(ModelConfig{}, 784);
    for (const auto kind : {Initialization::glorot, Initialization::he}) {
        const auto arena = initial_parameters(layout, kind, 7);
        for (const Tensor& tensor : layout.tensors()) {
            SCOPED_TRACE(tensor.name);
            const auto values = values_of(arena, tensor);
            if (is_bias(tensor)) {
                EXPECT_EQ(std::count(values.begin(), values.end(), 0.0F),
                          static_cast<std::ptrdiff_t>(values.size()));
                continue;
            }
            const auto out = static_cast<double>(tensor.shape[0]);
            const auto in = static_cast<double>(tensor.shape[1]);
            if (kind == Initialization::he) {
                check_moments(values, 2 / in, 3);
                continue;
            }
            check_moments(values, 2 / (in + out), 1.8);
            const auto bound = static_cast<float>(std::sqrt(6 / (in + out)));
            EXPECT_LE(*std::max_element(values.begin(), values.end()), bound);
            EXPECT_GE(*std::min_element(values.begin(), values.end()), -bound);
        }
    }
}

TEST(Initialization, PaddingIsZero) {
    ModelConfig model = model_of({5, 3}, 2, {3, 5});
    model.activation = Activation::gated;
    const ParameterLayout layout(model, 7);
    for (const auto kind : {Initialization::pytorch, Initialization::glorot, Initialization::he}) {
        auto arena = initial_parameters(layout, kind, 7);
        ASSERT_EQ(arena.size(), layout.arena_size);
        for (const Tensor& tensor : layout.tensors()) {
            std::fill_n(arena.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size,
                        0.0F);
        }
        EXPECT_EQ(std::count(arena.begin(), arena.end(), 0.0F),
                  static_cast<std::ptrdiff_t>(arena.size()));
    }
}

TEST(Initialization, TensorsAndSeedsDiffer) {
    ModelConfig model = model_of({16}, 16, {16});  // all weights of one shape
    model.activation = Activation::gated;
    const ParameterLayout layout(model, 16);
    std::set<std::vector<float>> seen;
    std::size_t count = 0;
    for (const std::uint64_t seed : {1U, 2U}) {
        const auto arena = initial_parameters(layout, Initialization::he, seed);
        for (const Tensor& tensor : layout.tensors()) {
            if (is_bias(tensor)) continue;
            seen.insert(values_of(arena, tensor));
            ++count;
        }
    }
    EXPECT_EQ(count, 14U);
    EXPECT_EQ(seen.size(), count);
}

}  // namespace
}  // namespace vae
