#include "kernels/bias_activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/launch.h"
#include "tests/activation_reference.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

using kernels::Activation;

// Inputs of one shape, as stored. Some products are extreme, some sums of floats exactly zero.
struct Inputs {
    explicit Inputs(const Shape& s, Storage stored_as = Storage::fp32)
        : shape(s),
          storage(stored_as),
          product(random_normals(s.size(), 1, 3.0f)),
          bias(random_normals(s.width(), 2)),
          d_h(random_normals(s.size(), 3)) {
        for (std::size_t i = 0; i < product.size(); i += 13) product[i] = i % 2 == 0 ? 200 : -200;
        for (std::size_t i = 5; i < product.size(); i += 17) product[i] = -bias[i % s.width()];
        product = stored(product, storage);
        d_h = stored(d_h, storage);
    }
    // The kernel's own float sum, so that its rounding is no error of the activation.
    double pre(std::size_t r, std::size_t c) const {
        return product[r * shape.width() + c] + bias[c];
    }
    Bound d_pre(Activation f, std::size_t r, std::size_t c) const {
        const double d = d_h[r * shape.width() + c];
        const Bound slope = slope_of(f, pre(r, c));
        return {d * slope.value,
                std::abs(d) * (slope.tolerance + kEpsilon * std::abs(slope.value))};
    }

    Shape shape;
    Storage storage;
    std::vector<float> product;
    std::vector<float> bias;
    std::vector<float> d_h;
};

class BiasActivation : public KernelTest {
  protected:
    StoredArray put(const Inputs& in, const std::vector<float>& values, std::size_t shift = 0) {
        return {stream(), in.storage, values, shift};
    }
    StoredArray room(const Inputs& in, std::size_t shift = 0) {
        return {stream(), in.storage, in.shape.size(), shift};
    }

    void check_forward(Activation f, const Inputs& in, std::size_t shift = 0) {
        const Shape& shape = in.shape;
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(f) << ", " << shape);
        auto product = put(in, in.product, shift);
        auto bias = upload(in.bias, shift);
        auto h = room(in, shift);
        bias_activation_forward(f, product.get(), bias.data(), shape.rows, shape.cols, h.get(),
                                stream().get());
        const auto value = [&](std::size_t r, std::size_t c) { return value_of(f, in.pre(r, c)); };
        expect_close(h.download(), stored(each(shape, value), in.storage), "h");
    }

    void check_backward(Activation f, const Inputs& in, std::size_t shift = 0) {
        const Shape& shape = in.shape;
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(f) << ", " << shape);
        auto product = put(in, in.product, shift);
        auto bias = upload(in.bias, shift);
        auto d_h = put(in, in.d_h, shift);
        auto d_pre = room(in, shift);
        auto d_bias = output(shape.width());
        DeviceScratch scratch(stream(), shape.rows, shape.cols);
        bias_activation_backward(f, product.get(), bias.data(), d_h.get(), shape.rows, shape.cols,
                                 d_pre.get(), d_bias.data(), scratch.get(), stream().get());
        const auto term = [&](std::size_t r, std::size_t c) { return in.d_pre(f, r, c); };
        expect_close(d_pre.download(), stored(each(shape, term), in.storage), "d_pre");
        expect_close(d_bias.download(), column_sums(shape, term), "d_bias");
    }

    void check(Activation f, const Inputs& in, std::size_t shift = 0) {
        check_forward(f, in, shift);
        check_backward(f, in, shift);
    }

    enum class Output { apart, in_d_h, in_product };

    // d_pre, and d_bias behind it.
    std::vector<float> backward(Activation f, const Inputs& in, Output where) {
        auto product = put(in, in.product);
        auto bias = upload(in.bias);
        auto d_h = put(in, in.d_h);
        auto apart = room(in);
        auto d_bias = output(in.shape.width());
        auto& in_place = where == Output::in_d_h ? d_h : product;
        auto& d_pre = where == Output::apart ? apart : in_place;
        DeviceScratch scratch(stream(), in.shape.rows, in.shape.cols);
        bias_activation_backward(f, product.get(), bias.data(), d_h.get(), in.shape.rows,
                                 in.shape.cols, d_pre.get(), d_bias.data(), scratch.get(),
                                 stream().get());
        std::vector<float> results = d_pre.download();
        const std::vector<float> sums = d_bias.download();
        results.insert(results.end(), sums.begin(), sums.end());
        return results;
    }

    void check_in_place(Activation f, const Inputs& in) {
        const Shape& shape = in.shape;
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(f) << ", " << shape);
        const std::vector<float> expected = backward(f, in, Output::apart);
        expect_same_bits(backward(f, in, Output::in_d_h), expected, "d_pre in d_h");
        expect_same_bits(backward(f, in, Output::in_product), expected, "d_pre in product");
        auto product = put(in, in.product);
        auto bias = upload(in.bias);
        auto h = room(in);
        const auto forward = [&](const kernels::Reals& result) {
            bias_activation_forward(f, product.get(), bias.data(), shape.rows, shape.cols, result,
                                    stream().get());
        };
        forward(h.get());
        forward(product.get());
        expect_same_bits(product.download(), h.download(), "h in product");
    }
};

TEST_F(BiasActivation, ForwardAtEveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) {
        for (const Activation f : kAllActivations) check_forward(f, Inputs(shape));
    }
}

TEST_F(BiasActivation, BackwardAtEveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) {
        for (const Activation f : kAllActivations) check_backward(f, Inputs(shape));
    }
}

// Each size with one activation: what depends on the size is the same for all.
TEST_F(BiasActivation, StoredAsBf16AtEveryRaggedSize) {
    std::size_t turn = 0;
    for (const Shape& shape : ragged_shapes()) {
        check(kAllActivations[turn++ % std::size(kAllActivations)], Inputs(shape, Storage::bf16));
    }
}

TEST_F(BiasActivation, EveryActivationOnAHiddenLayer) {
    for (const Storage storage : kStorages) {
        for (const Activation f : kAllActivations) check(f, Inputs({128, 400}, storage));
    }
}

TEST_F(BiasActivation, LargeSizes) {
    for (const Shape& shape : large_shapes()) {
        for (const Storage storage : kStorages) check(Activation::relu, Inputs(shape, storage));
    }
}

TEST_F(BiasActivation, LaunchPaths) {
    for (const Shape& shape : launch_paths()) {
        for (const Storage storage : kStorages) check(Activation::relu, Inputs(shape, storage));
    }
}

TEST_F(BiasActivation, UnalignedArrays) {
    for (const Storage storage : kStorages) {
        for (const std::size_t shift : {1, 2}) {
            check(Activation::gelu, Inputs({33, 128}, storage), shift);
        }
    }
}

// h in product, d_pre in d_h and d_pre in product: the same bits as apart, sums too. With one
// column a thread and with four.
TEST_F(BiasActivation, InPlace) {
    for (const Shape& shape : {Shape{33, 132}, Shape{33, 101}}) {
        for (const Storage storage : kStorages) {
            for (const Activation f : kAllActivations) check_in_place(f, Inputs(shape, storage));
        }
    }
}

// Whoever has relu's output alone: the same bits. With one column a thread and with four.
TEST_F(BiasActivation, BackwardOfReluFromItsOutput) {
    for (const Shape& shape : {Shape{33, 132}, Shape{33, 101}}) {
        for (const Storage storage : kStorages) {
            const Inputs in(shape, storage);
            auto product = put(in, in.product);
            auto bias = upload(in.bias);
            auto d_h = put(in, in.d_h);
            auto h = room(in);
            auto d_pre = room(in);
            auto d_bias = output(shape.width());
            DeviceScratch scratch(stream(), shape.rows, shape.cols);
            bias_activation_forward(Activation::relu, product.get(), bias.data(), shape.rows,
                                    shape.cols, h.get(), stream().get());
            bias_activation_backward(Activation::relu, h.get(), nullptr, d_h.get(), shape.rows,
                                     shape.cols, d_pre.get(), d_bias.data(), scratch.get(),
                                     stream().get());
            std::vector<float> results = d_pre.download();
            const std::vector<float> sums = d_bias.download();
            results.insert(results.end(), sums.begin(), sums.end());
            expect_same_bits(results, backward(Activation::relu, in, Output::apart), "from h");
        }
    }
}

TEST_F(BiasActivation, RepeatsBitForBit) {
    const Shape shape{301, 260};
    const Inputs in(shape);
    auto product = upload(in.product);
    auto bias = upload(in.bias);
    auto d_h = upload(in.d_h);
    DeviceScratch scratch(stream(), shape.rows, shape.cols);
    std::vector<float> first;
    for (int repeat = 0; repeat < 2; ++repeat) {
        auto d_pre = output(shape.size());
        auto d_bias = output(shape.width());
        bias_activation_backward(Activation::tanh, product.data(), bias.data(), d_h.data(),
                                 shape.rows, shape.cols, d_pre.data(), d_bias.data(), scratch.get(),
                                 stream().get());
        if (repeat == 0) {
            first = d_bias.download();
        } else {
            expect_same_bits(d_bias.download(), first, "d_bias");
        }
    }
}

TEST_F(BiasActivation, NanComesThrough) {
    for (const Storage storage : kStorages) {
        for (const Activation f : kAllActivations) {
            SCOPED_TRACE(static_cast<int>(f));
            StoredArray product(stream(), storage, {1, kNan, -1, 2});
            auto bias = upload(std::vector<float>{0, 0, kNan, 0});
            StoredArray d_h(stream(), storage, {1, 1, 1, kNan});
            StoredArray h(stream(), storage, 4);
            StoredArray d_pre(stream(), storage, 4);
            auto d_bias = output(4);
            DeviceScratch scratch(stream(), 1, 4);
            bias_activation_forward(f, product.get(), bias.data(), 1, 4, h.get(), stream().get());
            bias_activation_backward(f, product.get(), bias.data(), d_h.get(), 1, 4, d_pre.get(),
                                     d_bias.data(), scratch.get(), stream().get());
            const std::vector<float> values = h.download();
            const std::vector<float> gradients = d_pre.download();
            const std::vector<float> sums = d_bias.download();
            const bool value_is_nan[] = {false, true, true, false};
            const bool gradient_is_nan[] = {false, true, true, true};
            for (std::size_t i = 0; i < 4; ++i) {
                EXPECT_EQ(std::isnan(values[i]), value_is_nan[i]) << i;
                EXPECT_EQ(std::isnan(gradients[i]), gradient_is_nan[i]) << i;
                EXPECT_EQ(std::isnan(sums[i]), gradient_is_nan[i]) << i;
            }
        }
    }
}

TEST_F(BiasActivation, BadRequestsThrow) {
    auto array = output(64);
    DeviceScratch scratch(stream(), 8, 8);
    const auto backward = [&](Activation f, int rows, int cols, const kernels::Scratch& memory) {
        bias_activation_backward(f, array.data(), array.data(), array.data(), rows, cols,
                                 array.data(), array.data(), memory, stream().get());
    };
    EXPECT_THROW(backward(Activation::relu, -1, 8, scratch.get()), std::invalid_argument);
    EXPECT_THROW(backward(Activation::relu, 8, -1, scratch.get()), std::invalid_argument);
    EXPECT_THROW(backward(Activation::relu, 8, 8, {}), std::invalid_argument);
    EXPECT_THROW(backward(static_cast<Activation>(99), 8, 8, scratch.get()), std::invalid_argument);
    EXPECT_THROW(bias_activation_forward(Activation::relu, array.data(), array.data(), -1, 8,
                                         array.data(), stream().get()),
                 std::invalid_argument);
    // Arrays that are not stored alike.
    auto half = DeviceArray<Bf16>(stream(), 64);
    EXPECT_THROW(bias_activation_forward(Activation::relu, array.data(), array.data(), 8, 8,
                                         half.data(), stream().get()),
                 std::invalid_argument);
    EXPECT_THROW(
        bias_activation_backward(Activation::relu, half.data(), array.data(), array.data(), 8, 8,
                                 half.data(), array.data(), scratch.get(), stream().get()),
        std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
