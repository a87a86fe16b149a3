// Products that have the heads' reparameterisation, its backward or the likelihood in them give
// what the same product and the kernels for those give one after the other, which have references
// of their own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels/bernoulli.h"
#include "kernels/dense_bernoulli.h"
#include "kernels/dense_reparameterize.h"
#include "tests/dense_fixture.h"
#include "tests/reparameterize_reference.h"

namespace vae::test {
namespace {

using kernels::Activation;

struct Layer {
    int rows;
    int in;
    int out;

    DenseSize size() const { return {rows, in, out}; }
    std::vector<float> make(int height, int width, std::uint32_t stream, const Kind& kind) const {
        return stored(random_normals(Shape{height, width}.size(), stream), kind.storage);
    }
};

std::vector<Layer> ragged_layers() {
    return {{1, 1, 1},    {2, 33, 31},   {31, 16, 32},  {32, 50, 33}, {33, 64, 64},
            {65, 31, 65}, {40, 70, 130}, {64, 130, 16}, {7, 20, 101}, {130, 40, 50}};
}

// What two orders of adding may differ by, of sums of up to 32 terms without cancellation in float
// and in double behind: 16 roundings each at most.
constexpr double kOfSums = 32 * kEpsilon;

class DenseElbo : public DenseTest {
  protected:
    StoredArray put(const Kind& kind, const std::vector<float>& values) {
        return {stream(), kind.storage, values};
    }
    // x·Wᵀ as the kernels under test have it, before it is rounded to bf16: with the factors' own
    // values and, of floats, in the same way.
    std::vector<float> product(const Kind& kind, const Layer& layer, const std::vector<float>& x,
                               const std::vector<float>& weight) {
        if (kind.storage == Storage::bf16) {
            std::vector<float> result;
            for (int r = 0; r < layer.rows; ++r) {
                for (int o = 0; o < layer.out; ++o) {
                    double sum = 0;
                    for (int k = 0; k < layer.in; ++k) {
                        sum += double{x[at(r, k, layer.in)]} * weight[at(o, k, layer.in)];
                    }
                    result.push_back(static_cast<float>(sum));
                }
            }
            return result;
        }
        auto on_x = put(kind, x);
        auto on_weight = put(kind, weight);
        auto bias = upload(std::vector<float>(static_cast<std::size_t>(layer.out), 0.0f));
        auto got = output(Shape{layer.rows, layer.out}.size());
        auto h = output(Shape{layer.rows, layer.out}.size());
        dense_forward(Activation::relu, kind.factors, layer.size(), on_x.get(), on_weight.get(),
                      bias.data(), got.data(), h.data(), stream().get());
        return got.download();
    }
    // Of what is made of a product's elements, which are at most about `in` in size. Where both
    // come from one product, that of floats, only how a compiler contracts what follows may differ;
    // that of bf16 is here one in double.
    static double slack(const Kind& kind, const Layer& layer) {
        const double of_product = kind.storage == Storage::bf16
                                      ? within(kind, {0, 1.0 * layer.in}, layer.in).tolerance
                                      : 0;
        return 16 * kEpsilon + of_product;
    }
    static void expect_near(const std::vector<float>& got, const std::vector<float>& want,
                            double relative, double absolute, const char* name) {
        std::vector<Bound> bounds;
        bounds.reserve(want.size());
        for (const float value : want) {
            bounds.push_back({value, relative * std::abs(value) + absolute});
        }
        expect_close(got, bounds, name);
    }

    void check_bernoulli(const Kind& kind, const Layer& layer, int samples, bool is_weighted) {
        SCOPED_TRACE(testing::Message() << kind.name << ", rows " << layer.rows << ", in "
                                        << layer.in << ", out " << layer.out);
        const auto h = layer.make(layer.rows, layer.in, 1, kind);
        const auto weight = layer.make(layer.out, layer.in, 2, kind);
        const auto x = random_uniforms(Shape{layer.rows / samples, layer.out}.size(), 3);
        auto on_x = upload(x);
        auto bias = upload(random_normals(static_cast<std::size_t>(layer.out), 4));
        auto row_weight = upload(random_uniforms(static_cast<std::size_t>(layer.rows), 5));
        DeviceScratch scratch(stream(), layer.rows, layer.out);
        const kernels::LikelihoodInput input = {.bias = bias.data(),
                                                .x = on_x.data(),
                                                .rows = layer.rows,
                                                .pixels = layer.out,
                                                .samples = samples};
        kernels::LikelihoodGradient gradient;
        gradient.scale = 0.7f;
        gradient.row_weight = is_weighted ? row_weight.data() : nullptr;

        auto on_h = put(kind, h);
        auto on_weight = put(kind, weight);
        StoredArray d_product(stream(), kind.storage, Shape{layer.rows, layer.out}.size());
        auto recon = output(static_cast<std::size_t>(layer.rows));
        gradient.d_product = d_product.get();
        dense_bernoulli(kind.factors, layer.size(), on_h.get(), on_weight.get(), input, gradient,
                        recon.data(), scratch.get(), stream().get());

        auto logits = upload(product(kind, layer, h, weight));
        auto expected_recon = output(static_cast<std::size_t>(layer.rows));
        auto d_bias = output(static_cast<std::size_t>(layer.out));
        StoredArray expected(stream(), kind.storage, Shape{layer.rows, layer.out}.size());
        kernels::LikelihoodInput from_memory = input;
        from_memory.product = logits.data();
        gradient.d_product = expected.get();
        gradient.d_bias = d_bias.data();
        bernoulli_forward_backward(from_memory, gradient, expected_recon.data(), scratch.get(),
                                   stream().get());
        // A logit's error counts as it is, at most, in a gradient and a loss.
        const double error = slack(kind, layer);
        const double rounding = kind.storage == Storage::bf16 ? 2 * kBf16Rounding : 0;
        expect_near(d_product.download(), expected.download(), rounding, error, "d_product");
        expect_near(recon.download(), expected_recon.download(), kOfSums, error * layer.out,
                    "recon");
    }

    static void expect_product_of_heads(const Kind& kind, const Layer& layer,
                                        const std::vector<float>& h,
                                        const std::vector<float>& weight,
                                        const std::vector<float>& sums);
    void check_heads(const Kind& kind, const Layer& layer);
    void check_heads_backward(const Kind& kind, const Layer& layer);
};

TEST_F(DenseElbo, BernoulliOfRaggedLayers) {
    std::size_t turn = 0;
    for (const Layer& layer : ragged_layers()) {
        for (const Kind& kind : kKinds) {
            const bool is_even = layer.rows % 2 == 0;
            check_bernoulli(kind, layer, is_even ? 2 : 1, turn++ % 2 == 0);
        }
    }
}

// Also of more tiles than a warp has lanes.
TEST_F(DenseElbo, LargeSizes) {
    for (const Kind& kind : kKinds) {
        check_bernoulli(kind, {128, 400, 784}, 1, false);
        check_bernoulli(kind, {33, 16, 1100}, 1, false);
    }
}

// The heads' product, whose padding is left alone.
void DenseElbo::expect_product_of_heads(const Kind& kind, const Layer& layer,
                                        const std::vector<float>& h,
                                        const std::vector<float>& weight,
                                        const std::vector<float>& sums) {
    const int stride = padded(layer.out);
    std::vector<float> outputs;
    std::vector<Bound> bounds;
    for (int r = 0; r < layer.rows; ++r) {
        for (int o = 0; o < 2 * stride; ++o) {
            const float value = sums[at(r, o, 2 * stride)];
            if (o % stride >= layer.out) {
                ASSERT_TRUE(std::isnan(value)) << "padding is written";
                continue;
            }
            outputs.push_back(value);
            bounds.push_back(sum_of_products(
                kind, layer.in, [&](std::size_t k) { return h[at(r, 0, layer.in) + k]; },
                [&](std::size_t k) { return weight[at(o, 0, layer.in) + k]; }));
        }
    }
    expect_close(outputs, bounds, "product");
}

// Of a layer to so many dimensions.
void DenseElbo::check_heads(const Kind& kind, const Layer& layer) {
    SCOPED_TRACE(testing::Message() << kind.name << ", rows " << layer.rows << ", in " << layer.in
                                    << ", latent " << layer.out);
    const int latent = layer.out;
    const int stride = padded(latent);
    const std::size_t size = Shape{layer.rows, latent}.size();
    const auto h = layer.make(layer.rows, layer.in, 1, kind);
    auto weight = layer.make(2 * stride, layer.in, 2, kind);
    auto on_h = put(kind, h);
    auto on_weight = put(kind, weight);
    auto mu_bias = upload(random_normals(static_cast<std::size_t>(latent), 3));
    auto logvar_bias = upload(random_normals(static_cast<std::size_t>(latent), 4));
    std::vector<std::uint32_t> order(static_cast<std::size_t>(layer.rows));
    std::iota(order.begin(), order.end(), 11U);
    auto index = upload(order);
    auto product = output(Shape{layer.rows, 2 * stride}.size());
    kernels::HeadsView heads = {.mu_bias = mu_bias.data(),
                                .logvar_bias = logvar_bias.data(),
                                .examples = layer.rows,
                                .latent = latent,
                                .stride = stride,
                                .logvar_min = kLow,
                                .logvar_max = kHigh};
    const auto source = source_of(index.data());
    DeviceScratch scratch(stream(), layer.rows, 2 * latent);

    struct Arrays {
        DeviceArray<float> mu, logvar, kl, epsilon, z;
        DeviceArray<Bf16> rounded_z;
    };
    const auto make = [&] {
        return Arrays{output(size), output(size), output(static_cast<std::size_t>(layer.rows)),
                      output(size), output(size), DeviceArray<Bf16>(stream(), size)};
    };
    const auto draws_of = [](Arrays& arrays) {
        return kernels::Draws{.mu = arrays.mu.data(),
                              .logvar = arrays.logvar.data(),
                              .kl = arrays.kl.data(),
                              .epsilon = arrays.epsilon.data(),
                              .z = arrays.z.data(),
                              .rounded_z = arrays.rounded_z.data()};
    };
    Arrays got = make();
    dense_reparameterize(kind.factors, layer.in, on_h.get(), on_weight.get(), heads, source,
                         product.data(), draws_of(got), scratch.get(), stream().get());

    expect_product_of_heads(kind, layer, h, weight, product.download());
    Arrays expected = make();
    heads.product = product.data();
    reparameterize_forward(heads, source, draws_of(expected), stream().get());
    expect_same_bits(got.mu.download(), expected.mu.download(), "mu");
    expect_same_bits(got.logvar.download(), expected.logvar.download(), "logvar");
    expect_same_bits(got.epsilon.download(), expected.epsilon.download(), "epsilon");
    expect_same_bits(got.z.download(), expected.z.download(), "z");
    expect_rounded(got.rounded_z.download(), expected.z.download(), "rounded_z");
    expect_near(got.kl.download(), expected.kl.download(), kOfSums, kOfSums, "kl");

    kernels::Draws few = {.z = got.z.data()};  // what is null is not written
    heads.product = nullptr;
    dense_reparameterize(kind.factors, layer.in, on_h.get(), on_weight.get(), heads, source,
                         product.data(), few, scratch.get(), stream().get());
    expect_same_bits(got.z.download(), expected.z.download(), "z alone");
}

TEST_F(DenseElbo, HeadsOfRaggedLayers) {
    for (const Layer& layer : ragged_layers()) {
        for (const Kind& kind : kKinds) check_heads(kind, layer);
    }
}

// Of a layer from so many dimensions.
void DenseElbo::check_heads_backward(const Kind& kind, const Layer& layer) {
    SCOPED_TRACE(testing::Message() << kind.name << ", rows " << layer.rows << ", latent "
                                    << layer.in << ", out " << layer.out);
    const int latent = layer.in;
    const int stride = padded(latent);
    const auto d_product = layer.make(layer.rows, layer.out, 1, kind);
    const auto weight = layer.make(layer.out, latent, 2, kind);
    auto on_d_product = put(kind, d_product);
    auto on_weight = put(kind, weight);
    auto product = upload(random_normals(Shape{layer.rows, 2 * stride}.size(), 3, 2.0f));
    auto mu_bias = upload(random_normals(static_cast<std::size_t>(latent), 4));
    auto logvar_bias = upload(random_normals(static_cast<std::size_t>(latent), 5));
    std::vector<std::uint32_t> order(static_cast<std::size_t>(layer.rows));
    std::iota(order.begin(), order.end(), 5U);
    auto index = upload(order);
    const kernels::HeadsView heads = {.product = product.data(),
                                      .mu_bias = mu_bias.data(),
                                      .logvar_bias = logvar_bias.data(),
                                      .examples = layer.rows,
                                      .latent = latent,
                                      .stride = stride,
                                      .logvar_min = -1,  // some lie outside
                                      .logvar_max = 2};
    const auto source = source_of(index.data());
    StoredArray got(stream(), kind.storage, Shape{layer.rows, 2 * stride}.size());
    dense_reparameterize_backward(kind.factors, layer.size(), on_d_product.get(), on_weight.get(),
                                  heads, source, {.scale = 0.3}, got.get(), stream().get());

    std::vector<Bound> d_z;
    std::vector<float> nearest;
    double largest = 0;
    double error = 0;
    for (int r = 0; r < layer.rows; ++r) {
        for (int j = 0; j < latent; ++j) {
            const Bound bound = sum_of_products(
                kind, layer.out, [&](std::size_t k) { return d_product[at(r, 0, layer.out) + k]; },
                [&](std::size_t k) {
                    return weight[k * static_cast<std::size_t>(latent) +
                                  static_cast<std::size_t>(j)];
                });
            nearest.push_back(static_cast<float>(bound.value));
            largest = std::max(largest, std::abs(bound.value));
            error = std::max(error, bound.tolerance);
        }
    }
    auto on_d_z = upload(nearest);
    StoredArray expected(stream(), kind.storage, Shape{layer.rows, 2 * stride}.size());
    auto d_mu_bias = output(static_cast<std::size_t>(latent));
    auto d_logvar_bias = output(static_cast<std::size_t>(latent));
    DeviceScratch scratch(stream(), layer.rows, 2 * stride);
    reparameterize_backward(heads, source, {.d_z = on_d_z.data(), .kl_scale = 0.3}, expected.get(),
                            d_mu_bias.data(), d_logvar_bias.data(), scratch.get(), stream().get());
    // d_z counts as it is for mu, and ½·sigma·epsilon times, at most e·6/2, for log-variance.
    constexpr double kMostFactor = 8.2;
    const double rounding = kind.storage == Storage::bf16 ? 2 * kBf16Rounding : 0;
    expect_near(got.download(), expected.download(), rounding + kOfSums,
                kMostFactor * (error + 8 * kEpsilon * largest) + 16 * kEpsilon, "d_heads");
}

TEST_F(DenseElbo, HeadsBackwardOfRaggedLayers) {
    for (const Layer& layer : ragged_layers()) {
        for (const Kind& kind : kKinds) check_heads_backward(kind, layer);
    }
}

TEST_F(DenseElbo, WhatDoesNotFitIsRefused) {
    const kernels::HeadsView heads = {.examples = 4, .samples = 2, .latent = 4, .stride = 8};
    const auto forward = [&](const kernels::HeadsView& of, const kernels::Draws& draws) {
        kernels::dense_reparameterize(FloatFactors::tf32, 4, nullptr, nullptr, of, {}, nullptr,
                                      draws, {}, stream().get());
    };
    EXPECT_THROW(forward(heads, {}), std::invalid_argument) << "two draws";
    kernels::HeadsView one = heads;
    one.samples = 1;
    EXPECT_THROW(forward(one, {}), std::invalid_argument) << "no scratch";
    auto log_ratio = output(4);
    EXPECT_THROW(forward(one, {.log_ratio = log_ratio.data()}), std::invalid_argument);
    EXPECT_THROW(
        kernels::dense_reparameterize_backward(FloatFactors::tf32, {4, 5, 4}, nullptr, nullptr, one,
                                               {}, {}, nullptr, stream().get()),
        std::invalid_argument)
        << "another latent space";
    EXPECT_THROW(
        kernels::dense_bernoulli(FloatFactors::tf32, {4, 5, 4}, nullptr, nullptr,
                                 {.rows = 4, .pixels = 5}, {}, nullptr, {}, stream().get()),
        std::invalid_argument)
        << "other pixels";
}

}  // namespace
}  // namespace vae::test
