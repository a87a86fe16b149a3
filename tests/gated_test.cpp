#include "kernels/gated.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/launch.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

// Inputs of one shape. Some gates are wide open or shut, some sums exactly zero. Padding of the
// product is NaN, as nothing may depend on it.
struct Inputs {
    Inputs(const Shape& s, int pitch)
        : shape(s),
          stride(pitch),
          bias(random_normals(s.width(), 2)),
          gate_bias(random_normals(s.width(), 3)),
          d_h(random_normals(s.size(), 4)),
          product(s.height() * 2 * static_cast<std::size_t>(pitch), kNan) {
        const std::vector<float> linear = random_normals(s.size(), 1, 3.0f);
        const std::vector<float> gate = random_normals(s.size(), 5, 3.0f);
        for (std::size_t i = 0; i < s.size(); ++i) {
            const std::size_t r = i / s.width();
            const std::size_t c = i % s.width();
            product[at(r, c)] = i % 17 == 5 ? -bias[c] : linear[i];
            product[at(r, c) + half()] = i % 13 == 0 ? (i % 2 == 0 ? 200.0f : -200.0f) : gate[i];
        }
    }

    std::size_t half() const { return static_cast<std::size_t>(stride); }
    std::size_t at(std::size_t r, std::size_t c) const { return r * 2 * half() + c; }
    // The kernel's own float sums, so that their rounding is no error of what follows.
    double a(std::size_t r, std::size_t c) const { return product[at(r, c)] + bias[c]; }
    double g(std::size_t r, std::size_t c) const {
        return product[at(r, c) + half()] + gate_bias[c];
    }
    // What float may lose, in roundings of the value. expf is good to 2 units in the last place (4
    // roundings), 1 + e, the division and a product add one each: 10 for a·sigmoid g, as for silu.
    // The slope e/(1 + e)² has e once and its sum twice, and two products more: 20.
    Bound h(std::size_t r, std::size_t c) const {
        const double value = a(r, c) * sigmoid(g(r, c));
        return {value, 10 * kEpsilon * std::abs(value)};
    }
    Bound d_linear(std::size_t r, std::size_t c) const {
        const double value = d_h[r * shape.width() + c] * sigmoid(g(r, c));
        return {value, 10 * kEpsilon * std::abs(value)};
    }
    Bound d_gate(std::size_t r, std::size_t c) const {
        const double slope = sigmoid(g(r, c)) * sigmoid(-g(r, c));
        const double value = d_h[r * shape.width() + c] * a(r, c) * slope;
        return {value, 20 * kEpsilon * std::abs(value)};
    }

    Shape shape;
    int stride;
    std::vector<float> bias;
    std::vector<float> gate_bias;
    std::vector<float> d_h;
    std::vector<float> product;
};

// The least that the layout of parameters makes: a multiple of 8.
int padded(int cols) {
    return (cols + 7) / 8 * 8;
}

class Gated : public KernelTest {
  protected:
    // d_product, d_bias and d_gate_bias one behind the other.
    std::vector<float> backward(const Inputs& in, bool in_place, std::size_t shift = 0) {
        auto product = upload(in.product, shift);
        auto bias = upload(in.bias, shift);
        auto gate_bias = upload(in.gate_bias, shift);
        auto d_h = upload(in.d_h, shift);
        auto apart = output(in.product.size(), shift);
        auto d_bias = output(in.shape.width());
        auto d_gate_bias = output(in.shape.width());
        auto& d_product = in_place ? product : apart;
        DeviceScratch scratch(stream(), in.shape.rows, 2 * in.stride);
        kernels::gated_backward({product.data(), bias.data(), gate_bias.data(), in.shape.rows,
                                 in.shape.cols, in.stride},
                                d_h.data(), d_product.data(), d_bias.data(), d_gate_bias.data(),
                                scratch.get(), stream().get());
        std::vector<float> results = d_product.download();
        for (auto* sums : {&d_bias, &d_gate_bias}) {
            const std::vector<float> values = sums->download();
            results.insert(results.end(), values.begin(), values.end());
        }
        return results;
    }

    void check_forward(const Shape& shape, int stride, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << shape << ", stride " << stride);
        const Inputs in(shape, stride);
        auto product = upload(in.product, shift);
        auto bias = upload(in.bias, shift);
        auto gate_bias = upload(in.gate_bias, shift);
        auto h = output(shape.size(), shift);
        kernels::gated_forward(
            {product.data(), bias.data(), gate_bias.data(), shape.rows, shape.cols, stride},
            h.data(), stream().get());
        expect_close(h.download(), each(shape, [&](auto r, auto c) { return in.h(r, c); }), "h");
    }

    void check_backward(const Shape& shape, int stride, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << shape << ", stride " << stride);
        const Inputs in(shape, stride);
        const std::vector<float> results = backward(in, false, shift);
        std::vector<Bound> expected(in.product.size());  // padding is zero
        for (std::size_t r = 0; r < shape.height(); ++r) {
            for (std::size_t c = 0; c < shape.width(); ++c) {
                expected[in.at(r, c)] = in.d_linear(r, c);
                expected[in.at(r, c) + in.half()] = in.d_gate(r, c);
            }
        }
        const auto add = [&](const std::vector<Bound>& sums) {
            expected.insert(expected.end(), sums.begin(), sums.end());
        };
        add(column_sums(shape, [&](auto r, auto c) { return in.d_linear(r, c); }));
        add(column_sums(shape, [&](auto r, auto c) { return in.d_gate(r, c); }));
        expect_close(results, expected, "d_product, d_bias, d_gate_bias");
    }
};

TEST_F(Gated, ForwardAtEveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) check_forward(shape, padded(shape.cols));
}

TEST_F(Gated, BackwardAtEveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) check_backward(shape, padded(shape.cols));
}

TEST_F(Gated, LargeSizes) {
    for (const Shape& shape : large_shapes()) {
        check_forward(shape, padded(shape.cols));
        check_backward(shape, padded(shape.cols));
    }
}

// More padding than columns; a stride that only the backward's pairs can use; none that is odd.
TEST_F(Gated, OtherStrides) {
    for (const int stride : {34, 64, 192}) {
        check_forward({33, 33}, stride);
        check_backward({33, 33}, stride);
        check_forward({33, 32}, stride);
        check_backward({33, 32}, stride);
    }
    check_forward({33, 32}, 35);
}

TEST_F(Gated, UnalignedArrays) {
    check_forward({33, 128}, 128, 1);
    check_backward({33, 128}, 128, 1);
}

// The same bits as apart, sums too, with accesses of 4 and of 8 bytes.
TEST_F(Gated, InPlaceOfTheProduct) {
    for (const Shape& shape : {Shape{301, 132}, Shape{301, 101}}) {
        const Inputs in(shape, padded(shape.cols));
        expect_same_bits(backward(in, true), backward(in, false), "gradients");
    }
}

TEST_F(Gated, RepeatsBitForBit) {
    const Inputs in({301, 260}, 264);
    expect_same_bits(backward(in, false), backward(in, false), "gradients");
}

TEST_F(Gated, NanComesThrough) {
    // NaN in the linear part, in the gate, in either bias, in the upstream gradient.
    auto product = upload(std::vector<float>{kNan, 1, 1, 1, 1, 1, 1, kNan, 1, 1, 1, 1});
    auto bias = upload(std::vector<float>{0, 0, kNan, 0, 0, 0});
    auto gate_bias = upload(std::vector<float>{0, 0, 0, kNan, 0, 0});
    auto d_h = upload(std::vector<float>{1, 1, 1, 1, kNan, 1});
    auto h = output(6);
    auto d_product = output(12);
    auto d_bias = output(6);
    auto d_gate_bias = output(6);
    DeviceScratch scratch(stream(), 1, 12);
    const kernels::GatedView layer{product.data(), bias.data(), gate_bias.data(), 1, 6, 6};
    kernels::gated_forward(layer, h.data(), stream().get());
    kernels::gated_backward(layer, d_h.data(), d_product.data(), d_bias.data(), d_gate_bias.data(),
                            scratch.get(), stream().get());
    const auto expect_nan = [](const std::vector<float>& values, std::size_t first,
                               const std::vector<bool>& is_nan) {
        for (std::size_t i = 0; i < is_nan.size(); ++i) {
            EXPECT_EQ(std::isnan(values[first + i]), is_nan[i]) << first + i;
        }
    };
    expect_nan(h.download(), 0, {true, true, true, true, false, false});
    const std::vector<bool> linear = {false, true, false, true, true, false};
    const std::vector<bool> gate = {true, true, true, true, true, false};
    expect_nan(d_product.download(), 0, linear);
    expect_nan(d_product.download(), 6, gate);
    expect_nan(d_bias.download(), 0, linear);
    expect_nan(d_gate_bias.download(), 0, gate);
}

TEST_F(Gated, BadRequestsThrow) {
    auto array = output(256);
    DeviceScratch scratch(stream(), 8, 16);
    const auto forward = [&](int rows, int cols, int stride) {
        kernels::gated_forward({array.data(), array.data(), array.data(), rows, cols, stride},
                               array.data(), stream().get());
    };
    const auto backward = [&](int rows, int cols, int stride, const kernels::Scratch& memory) {
        kernels::gated_backward({array.data(), array.data(), array.data(), rows, cols, stride},
                                array.data(), array.data(), array.data(), array.data(), memory,
                                stream().get());
    };
    EXPECT_THROW(forward(-1, 8, 8), std::invalid_argument);
    EXPECT_THROW(forward(8, 8, 7), std::invalid_argument);
    EXPECT_THROW(backward(8, -1, 8, scratch.get()), std::invalid_argument);
    EXPECT_THROW(backward(8, 8, 7, scratch.get()), std::invalid_argument);
    EXPECT_THROW(backward(8, 7, 7, scratch.get()), std::invalid_argument);  // odd
    EXPECT_THROW(backward(8, 8, 1 << 30, scratch.get()), std::invalid_argument);
    EXPECT_THROW(backward(8, 8, 8, {}), std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
