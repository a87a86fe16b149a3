#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "tests/activation_reference.h"
#include "tests/dense_fixture.h"

namespace vae::test {
namespace {

using kernels::DenseSize;
using kernels::FloatFactors;

std::vector<DenseSize> ragged_sizes() {
    constexpr int kSizes[] = {1, 2, 15, 16, 31, 32, 33, 50, 64, 65, 101, 130};
    std::vector<DenseSize> sizes;
    std::size_t turn = 0;
    for (const int rows : kSizes) {
        for (const int in : kSizes) {
            // Every third, so that each pair is there with several sizes of the last.
            sizes.push_back({rows, in, kSizes[turn++ * 5 % std::size(kSizes)]});
        }
    }
    return sizes;
}

// A layer's arrays, as stored: x and d_product as the layer sees them, `before` of the one before.
struct Inputs {
    Inputs(const DenseSize& of, const Kind& as)
        : size(of),
          kind(as),
          x(make(of.rows, of.in, 1)),
          weight(make(of.out, of.in, 2)),
          d_product(make(of.rows, of.out, 3)),
          before(make(of.rows, of.in, 4)),
          bias_out(random_normals(static_cast<std::size_t>(of.out), 5)),
          bias_in(random_normals(static_cast<std::size_t>(of.in), 6)) {}

    std::vector<float> make(int rows, int columns, std::uint32_t stream) const {
        return stored(random_normals(Shape{rows, columns}.size(), stream), kind.storage);
    }
    Bound forward(std::size_t r, std::size_t o) const {
        const auto in = static_cast<std::size_t>(size.in);
        return sum_of_products(
            kind, size.in, [&](std::size_t k) { return x[r * in + k]; },
            [&](std::size_t k) { return weight[o * in + k]; });
    }
    Bound d_x(std::size_t r, std::size_t i) const {
        const auto in = static_cast<std::size_t>(size.in);
        const auto out = static_cast<std::size_t>(size.out);
        return sum_of_products(
            kind, size.out, [&](std::size_t k) { return d_product[r * out + k]; },
            [&](std::size_t k) { return weight[k * in + i]; });
    }
    Bound d_weight(std::size_t o, std::size_t i) const {
        const auto in = static_cast<std::size_t>(size.in);
        const auto out = static_cast<std::size_t>(size.out);
        return sum_of_products(
            kind, size.rows, [&](std::size_t k) { return d_product[k * out + o]; },
            [&](std::size_t k) { return x[k * in + i]; });
    }
    // The kernel's own float sum, so that its rounding is no error of the slope.
    float pre(std::size_t r, std::size_t i) const {
        return before[r * static_cast<std::size_t>(size.in) + i] + bias_in[i];
    }

    DenseSize size;
    Kind kind;
    std::vector<float> x;
    std::vector<float> weight;
    std::vector<float> d_product;
    std::vector<float> before;
    std::vector<float> bias_out;
    std::vector<float> bias_in;
};

// f of a sum that is known within bounds: the slope of none of the activations is above 1.2.
Bound value_within(Activation f, const Bound& pre) {
    const Bound value = value_of(f, pre.value);
    return {value.value, value.tolerance + 1.2 * pre.tolerance};
}

class Dense : public DenseTest {
  protected:
    StoredArray put(const Inputs& in, const std::vector<float>& values, std::size_t shift = 0) {
        return {stream(), in.kind.storage, values, shift};
    }
    StoredArray room(const Inputs& in, int rows, int columns, std::size_t shift = 0) {
        return {stream(), in.kind.storage, Shape{rows, columns}.size(), shift};
    }

    struct Forward {
        std::vector<float> product;
        std::vector<float> h;
    };
    Forward forward(Activation f, const Inputs& in, std::size_t shift = 0) {
        auto x = put(in, in.x, shift);
        auto weight = put(in, in.weight, shift);
        auto bias = upload(in.bias_out, shift);
        auto product = room(in, in.size.rows, in.size.out, shift);
        auto h = room(in, in.size.rows, in.size.out, shift);
        dense_forward(f, in.kind.factors, in.size, x.get(), weight.get(), bias.data(),
                      product.get(), h.get(), stream().get());
        return {product.download(), h.download()};
    }
    std::vector<float> backward(Activation f, const Inputs& in, std::size_t shift = 0,
                                bool in_place = false) {
        auto d_product = put(in, in.d_product, shift);
        auto weight = put(in, in.weight, shift);
        auto before = put(in, in.before, shift);
        auto bias = upload(in.bias_in, shift);
        auto apart = room(in, in.size.rows, in.size.in, shift);
        auto& d_before = in_place ? before : apart;
        dense_backward(f, in.kind.factors, in.size, d_product.get(), weight.get(), before.get(),
                       bias.data(), d_before.get(), stream().get());
        return d_before.download();
    }
    struct Weights {
        std::vector<float> d_weight;
        std::vector<float> d_bias;
    };
    Weights backward_weight(const Inputs& in, std::size_t shift = 0) {
        auto d_product = put(in, in.d_product, shift);
        auto x = put(in, in.x, shift);
        auto d_weight = output(in.weight.size(), shift);
        auto d_bias = output(in.bias_out.size(), shift);
        dense_backward_weight(in.kind.factors, in.size, d_product.get(), x.get(), d_weight.data(),
                              {.bias = d_bias.data()}, stream().get());
        return {d_weight.download(), d_bias.download()};
    }

    void check_forward(Activation f, const Inputs& in, std::size_t shift) {
        const Shape shape = {in.size.rows, in.size.out};
        const auto product = [&](std::size_t r, std::size_t o) { return in.forward(r, o); };
        const auto h = [&](std::size_t r, std::size_t o) {
            Bound pre = in.forward(r, o);
            pre.value += in.bias_out[o];
            pre.tolerance += kEpsilon * std::abs(pre.value);
            return value_within(f, pre);
        };
        const Forward got = forward(f, in, shift);
        expect_close(got.product, stored(each(shape, product), in.kind.storage), "product");
        expect_close(got.h, stored(each(shape, h), in.kind.storage), "h");
    }
    void check_backward(Activation f, const Inputs& in, std::size_t shift) {
        const auto d_before = [&](std::size_t r, std::size_t i) {
            const Bound d = in.d_x(r, i);
            const Bound slope = slope_of(f, in.pre(r, i));
            const double value = d.value * slope.value;
            return Bound{value, d.tolerance * (std::abs(slope.value) + slope.tolerance) +
                                    std::abs(d.value) * slope.tolerance +
                                    kEpsilon * std::abs(value)};
        };
        expect_close(backward(f, in, shift),
                     stored(each({in.size.rows, in.size.in}, d_before), in.kind.storage),
                     "d_before");
    }
    void check_backward_weight(const Inputs& in, std::size_t shift) {
        const Weights got = backward_weight(in, shift);
        expect_close(got.d_weight,
                     each({in.size.out, in.size.in},
                          [&](std::size_t o, std::size_t i) { return in.d_weight(o, i); }),
                     "d_weight");
        std::vector<Bound> d_bias;
        for (std::size_t o = 0; o < in.bias_out.size(); ++o) {
            Sum sum;
            for (std::size_t r = 0; r < static_cast<std::size_t>(in.size.rows); ++r) {
                sum.add(in.d_product[r * in.bias_out.size() + o]);
            }
            d_bias.push_back(sum.within(in.size.rows / 8.0 + 9));
        }
        expect_close(got.d_bias, d_bias, "d_bias");
    }
    void check(Activation f, const Inputs& in, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << in.kind.name << ", activation " << static_cast<int>(f)
                                        << ", rows " << in.size.rows << ", in " << in.size.in
                                        << ", out " << in.size.out << ", shift " << shift);
        check_forward(f, in, shift);
        check_backward(f, in, shift);
        check_backward_weight(in, shift);
    }
};

TEST_F(Dense, EveryRaggedSize) {
    std::size_t turn = 0;
    for (const DenseSize& size : ragged_sizes()) {
        check(kAllActivations[turn % std::size(kAllActivations)],
              Inputs(size, kKinds[turn % std::size(kKinds)]));
        ++turn;
    }
}

TEST_F(Dense, EveryActivationOfEveryKind) {
    for (const Kind& kind : kKinds) {
        for (const Activation f : kAllActivations) check(f, Inputs({33, 70, 48}, kind));
    }
}

TEST_F(Dense, LargeSizes) {
    for (const Kind& kind : kKinds) {
        check(Activation::relu, Inputs({128, 784, 400}, kind));
        check(Activation::tanh, Inputs({1000, 50, 200}, kind));
    }
}

// Copied 4 bytes at a time, or one element.
TEST_F(Dense, UnalignedArrays) {
    for (const Kind& kind : kKinds) {
        for (const std::size_t shift : {1, 2, 3}) {
            check(Activation::softplus, Inputs({40, 72, 40}, kind), shift);
        }
    }
}

// In the place of what it is multiplied with, as layers do it: the same bits.
TEST_F(Dense, BackwardInPlace) {
    for (const Kind& kind : kKinds) {
        const Inputs in({65, 101, 50}, kind);
        for (const Activation f : kAllActivations) {
            expect_same_bits(backward(f, in, 0, true), backward(f, in), "d_before");
        }
    }
}

// Whoever has relu's output alone: the same bits.
TEST_F(Dense, BackwardOfReluFromItsOutput) {
    for (const Kind& kind : kKinds) {
        const Inputs in({33, 70, 48}, kind);
        std::vector<float> h(in.before.size());
        for (std::size_t i = 0; i < h.size(); ++i) {
            h[i] = std::max(in.pre(i / 70, i % 70), 0.0f);
        }
        auto d_product = put(in, in.d_product);
        auto weight = put(in, in.weight);
        auto output_of_relu = put(in, stored(h, kind.storage));
        auto d_before = room(in, in.size.rows, in.size.in);
        dense_backward(Activation::relu, kind.factors, in.size, d_product.get(), weight.get(),
                       output_of_relu.get(), nullptr, d_before.get(), stream().get());
        expect_same_bits(d_before.download(), backward(Activation::relu, in), "d_before");
    }
}

// Of a factor that is not finite all that depends on it is NaN or infinite, and nothing else,
// though tiles are filled up with zeros beside it.
TEST_F(Dense, WhatIsNotFiniteComesThrough) {
    for (const Kind& kind : kKinds) {
        for (const float value : {kNan, std::numeric_limits<float>::infinity()}) {
            SCOPED_TRACE(testing::Message() << kind.name << ", " << value);
            Inputs in({35, 37, 34}, kind);
            in.x[33 * 37 + 36] = value;
            in.d_product[33 * 34 + 32] = value;
            const Forward got = forward(Activation::relu, in);
            for (std::size_t i = 0; i < got.product.size(); ++i) {
                ASSERT_EQ(std::isfinite(got.product[i]), i / 34 != 33) << i;
                if (!std::isnan(value)) continue;
                ASSERT_EQ(std::isnan(got.h[i]), i / 34 == 33) << i;
            }
            const std::vector<float> d_before = backward(Activation::tanh, in);
            for (std::size_t i = 0; i < d_before.size(); ++i) {
                ASSERT_EQ(std::isfinite(d_before[i]), i / 37 != 33) << i;
            }
            const Weights weights = backward_weight(in);
            for (std::size_t i = 0; i < weights.d_weight.size(); ++i) {
                const bool depends = i / 37 == 32 || i % 37 == 36;
                ASSERT_EQ(std::isfinite(weights.d_weight[i]), !depends) << i;
            }
            for (std::size_t o = 0; o < weights.d_bias.size(); ++o) {
                ASSERT_EQ(std::isfinite(weights.d_bias[o]), o != 32) << o;
            }
        }
    }
}

TEST_F(Dense, NoRows) {
    for (const Kind& kind : kKinds) {
        const Inputs in({0, 33, 20}, kind);
        const Weights weights = backward_weight(in);
        EXPECT_EQ(weights.d_weight, std::vector<float>(33 * 20, 0.0f));
        EXPECT_EQ(weights.d_bias, std::vector<float>(20, 0.0f));
        EXPECT_TRUE(forward(Activation::relu, in).h.empty());
        EXPECT_TRUE(backward(Activation::relu, in).empty());
    }
}

// Two parts of TF32 are far better than one: the products of floats, without which a comparison
// with a reference would prove little.
TEST_F(Dense, TwoPartsHoldWhatOneLoses) {
    const auto error = [&](const Kind& kind) {
        const Inputs in({64, 300, 64}, kind);
        const std::vector<float> product = forward(Activation::relu, in).product;
        double squares = 0;
        double size = 0;
        for (std::size_t i = 0; i < product.size(); ++i) {
            double exact = 0;
            for (std::size_t k = 0; k < 300; ++k) {
                exact += static_cast<double>(in.x[i / 64 * 300 + k]) *
                         static_cast<double>(in.weight[i % 64 * 300 + k]);
            }
            squares += (product[i] - exact) * (product[i] - exact);
            size += exact * exact;
        }
        return std::sqrt(squares / size);
    };
    EXPECT_LT(error(kKinds[0]), 1e-6);
    const double one = error(kKinds[1]);
    EXPECT_GT(one, 1e-5);
    EXPECT_LT(one, 1e-3);
}

TEST_F(Dense, WrongSizesAndStoragesAreRefused) {
    const Inputs in({4, 4, 4}, kKinds[0]);
    auto floats = put(in, in.x);
    auto halves = StoredArray(stream(), Storage::bf16, in.x);
    const auto backward_of = [&](const DenseSize& size, kernels::ConstReals x) {
        kernels::dense_backward_weight(FloatFactors::tf32, size, floats.get(), x, nullptr, {},
                                       stream().get());
    };
    EXPECT_THROW(backward_of({-1, 4, 4}, floats.get()), std::invalid_argument);
    EXPECT_THROW(backward_of({4, 0, 4}, floats.get()), std::invalid_argument);
    EXPECT_THROW(backward_of({4, 4, 0}, floats.get()), std::invalid_argument);
    EXPECT_THROW(backward_of({4, 4, 4}, halves.get()), std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
