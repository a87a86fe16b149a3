#include "kernels/gated.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/launch.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

// Inputs of one shape, as stored. Some gates are wide open or shut, some sums exactly zero. Padding
// of the product is NaN, as nothing may depend on it.
struct Inputs {
    Inputs(const Shape& s, int pitch, Storage stored_as = Storage::fp32)
        : shape(s),
          stride(pitch),
          storage(stored_as),
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
        product = stored(product, storage);
        d_h = stored(d_h, storage);
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
    Storage storage;
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
        StoredArray product(stream(), in.storage, in.product, shift);
        auto bias = upload(in.bias, shift);
        auto gate_bias = upload(in.gate_bias, shift);
        StoredArray d_h(stream(), in.storage, in.d_h, shift);
        StoredArray apart(stream(), in.storage, in.product.size(), shift);
        auto d_bias = output(in.shape.width());
        auto d_gate_bias = output(in.shape.width());
        auto& d_product = in_place ? product : apart;
        DeviceScratch scratch(stream(), in.shape.rows, 2 * in.stride);
        kernels::gated_backward(
            {product.get(), bias.data(), gate_bias.data(), in.shape.rows, in.shape.cols, in.stride},
            d_h.get(), d_product.get(), d_bias.data(), d_gate_bias.data(), scratch.get(),
            stream().get());
        std::vector<float> results = d_product.download();
        for (auto* sums : {&d_bias, &d_gate_bias}) {
            const std::vector<float> values = sums->download();
            results.insert(results.end(), values.begin(), values.end());
        }
        return results;
    }

    void check_forward(const Inputs& in, std::size_t shift = 0) {
        const Shape& shape = in.shape;
        SCOPED_TRACE(testing::Message() << shape << ", stride " << in.stride);
        StoredArray product(stream(), in.storage, in.product, shift);
        auto bias = upload(in.bias, shift);
        auto gate_bias = upload(in.gate_bias, shift);
        StoredArray h(stream(), in.storage, shape.size(), shift);
        kernels::gated_forward(
            {product.get(), bias.data(), gate_bias.data(), shape.rows, shape.cols, in.stride},
            h.get(), stream().get());
        const std::vector<Bound> values = each(shape, [&](auto r, auto c) { return in.h(r, c); });
        expect_close(h.download(), stored(values, in.storage), "h");
    }

    void check_backward(const Inputs& in, std::size_t shift = 0) {
        const Shape& shape = in.shape;
        SCOPED_TRACE(testing::Message() << shape << ", stride " << in.stride);
        const std::vector<float> results = backward(in, false, shift);
        std::vector<Bound> expected(in.product.size());  // padding is zero
        for (std::size_t r = 0; r < shape.height(); ++r) {
            for (std::size_t c = 0; c < shape.width(); ++c) {
                expected[in.at(r, c)] = stored(in.d_linear(r, c), in.storage);
                expected[in.at(r, c) + in.half()] = stored(in.d_gate(r, c), in.storage);
            }
        }
        const auto add = [&](const std::vector<Bound>& sums) {
            expected.insert(expected.end(), sums.begin(), sums.end());
        };
        add(column_sums(shape, [&](auto r, auto c) { return in.d_linear(r, c); }));
        add(column_sums(shape, [&](auto r, auto c) { return in.d_gate(r, c); }));
        expect_close(results, expected, "d_product, d_bias, d_gate_bias");
    }

    void check(const Shape& shape, int stride, Storage storage, std::size_t shift = 0) {
        const Inputs in(shape, stride, storage);
        check_forward(in, shift);
        check_backward(in, shift);
    }
};

TEST_F(Gated, EveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) {
        for (const Storage storage : kStorages) check(shape, padded(shape.cols), storage);
    }
}

TEST_F(Gated, LargeSizes) {
    for (const Shape& shape : large_shapes()) {
        for (const Storage storage : kStorages) check(shape, padded(shape.cols), storage);
    }
}

TEST_F(Gated, LaunchPaths) {
    for (const Shape& shape : launch_paths()) {
        for (const Storage storage : kStorages) check(shape, padded(shape.cols), storage);
    }
}

// More padding than columns; a stride that only the backward's pairs can use; none that is odd.
TEST_F(Gated, OtherStrides) {
    for (const Storage storage : kStorages) {
        for (const int stride : {34, 64, 192}) {
            check({33, 33}, stride, storage);
            check({33, 32}, stride, storage);
        }
        check_forward(Inputs({33, 32}, 35, storage));
    }
}

TEST_F(Gated, UnalignedArrays) {
    for (const Storage storage : kStorages) {
        for (const std::size_t shift : {1, 2}) check({33, 128}, 128, storage, shift);
    }
}

// The same bits as apart, sums too, with accesses of one and of two elements.
TEST_F(Gated, InPlaceOfTheProduct) {
    for (const Shape& shape : {Shape{301, 132}, Shape{301, 101}}) {
        for (const Storage storage : kStorages) {
            const Inputs in(shape, padded(shape.cols), storage);
            expect_same_bits(backward(in, true), backward(in, false), "gradients");
        }
    }
}

TEST_F(Gated, RepeatsBitForBit) {
    const Inputs in({301, 260}, 264);
    expect_same_bits(backward(in, false), backward(in, false), "gradients");
}

TEST_F(Gated, NanComesThrough) {
    for (const Storage storage : kStorages) {
        // NaN in the linear part, in the gate, in either bias, in the upstream gradient.
        StoredArray product(stream(), storage,
                            std::vector<float>{kNan, 1, 1, 1, 1, 1, 1, kNan, 1, 1, 1, 1});
        auto bias = upload(std::vector<float>{0, 0, kNan, 0, 0, 0});
        auto gate_bias = upload(std::vector<float>{0, 0, 0, kNan, 0, 0});
        StoredArray d_h(stream(), storage, std::vector<float>{1, 1, 1, 1, kNan, 1});
        StoredArray h(stream(), storage, 6);
        StoredArray d_product(stream(), storage, 12);
        auto d_bias = output(6);
        auto d_gate_bias = output(6);
        DeviceScratch scratch(stream(), 1, 12);
        const kernels::GatedView layer{product.get(), bias.data(), gate_bias.data(), 1, 6, 6};
        kernels::gated_forward(layer, h.get(), stream().get());
        kernels::gated_backward(layer, d_h.get(), d_product.get(), d_bias.data(),
                                d_gate_bias.data(), scratch.get(), stream().get());
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
    // Arrays that are not stored alike.
    DeviceArray<Bf16> half(stream(), 256);
    EXPECT_THROW(kernels::gated_forward({array.data(), array.data(), array.data(), 8, 8, 8},
                                        half.data(), stream().get()),
                 std::invalid_argument);
    EXPECT_THROW(kernels::gated_backward({half.data(), array.data(), array.data(), 8, 8, 8},
                                         half.data(), array.data(), array.data(), array.data(),
                                         scratch.get(), stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
