// What the tests of likelihoods of independent pixels do alike: run on random inputs, compare
// recon, d_product and d_bias with double, and look for NaN, repeatability and empty sizes.
#pragma once

#include <array>
#include <functional>
#include <ostream>
#include <vector>

#include "kernels/likelihood.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {

// Outputs of the decoder for one pixel: one, or two that lie `pixels` columns apart.
using PixelOutputs = std::array<double, 2>;

// Of one pixel: its value, the size of its terms, and how far the kernel's float may be from it.
struct PixelLoss {
    double value = 0;
    double magnitude = 0;
    double error = 0;
};

// A likelihood of one pixel in double: its loss, and the gradients without scale.
struct PixelReference {
    int outputs = 1;  // a pixel
    std::function<PixelLoss(const PixelOutputs& m, double x)> loss;
    std::function<std::array<Bound, 2>(const PixelOutputs& m, double x)> gradients;
    // From a uniform in [0, 1) to a value in the support.
    std::function<float(float)> value = [](float u) { return u; };
    // Standard deviation of the products; some are `large`.
    float spread = 3;
    float large = 200;
};

struct LikelihoodInputs {
    LikelihoodInputs(const Shape& s, const PixelReference& reference, int samples_of_each = 1)
        : shape(s),
          outputs(static_cast<std::size_t>(reference.outputs)),
          samples(samples_of_each),
          product(random_normals(s.size() * outputs, 1, reference.spread)),
          bias(random_normals(s.width() * outputs, 2)),
          x(random_uniforms(s.size() / static_cast<std::size_t>(samples), 3)),
          row_weight(random_uniforms(s.height(), 4)) {
        for (std::size_t i = 0; i < product.size(); i += 13) {
            product[i] = i % 2 == 0 ? reference.large : -reference.large;
        }
        for (std::size_t i = 0; i < x.size(); i += 3) x[i] = i % 2 == 0 ? 0.0f : 1.0f;
        for (float& value : x) value = reference.value(value);
    }
    std::size_t width() const { return shape.width() * outputs; }
    PixelOutputs pre(std::size_t r, std::size_t c) const {
        PixelOutputs m = {};
        for (std::size_t k = 0; k < outputs; ++k) {
            const std::size_t column = k * shape.width() + c;
            m[k] = product[r * width() + column] + bias[column];  // rounded as in the kernel
        }
        return m;
    }
    double pixel(std::size_t r, std::size_t c) const {
        return x[r / static_cast<std::size_t>(samples) * shape.width() + c];
    }

    Shape shape;  // rows × pixels
    std::size_t outputs;
    int samples;
    std::vector<float> product;
    std::vector<float> bias;
    std::vector<float> x;
    std::vector<float> row_weight;
    bool is_weighted = false;
    Storage storage = Storage::fp32;  // of d_product
};

struct LikelihoodOutputs {
    std::vector<float> recon;
    std::vector<float> d_product;
    std::vector<float> d_bias;
};

struct Launchers {
    std::function<void(const kernels::LikelihoodInput&, float* recon, const kernels::Scratch&,
                       cudaStream_t)>
        forward;
    std::function<void(const kernels::LikelihoodInput&, const kernels::LikelihoodGradient&,
                       float* recon, const kernels::Scratch&, cudaStream_t)>
        forward_backward;
};

// The device arrays of one call.
struct LikelihoodArrays {
    LikelihoodArrays(const TestStream& stream, const LikelihoodInputs& inputs, std::size_t shift)
        : in(inputs),
          product(stream, in.product, shift),
          bias(stream, in.bias, shift),
          x(stream, in.x, shift),
          row_weight(stream, in.row_weight),
          recon(stream, in.shape.height()),
          scratch(stream, in.shape.rows, in.shape.cols, static_cast<int>(in.outputs)) {}

    kernels::LikelihoodInput input() {
        return {product.data(), bias.data(), x.data(), in.shape.rows, in.shape.cols, in.samples};
    }

    const LikelihoodInputs& in;
    DeviceArray<float> product;
    DeviceArray<float> bias;
    DeviceArray<float> x;
    DeviceArray<float> row_weight;
    DeviceArray<float> recon;
    DeviceScratch scratch;
};

class LikelihoodTest : public KernelTest {
  protected:
    static constexpr float kScale = 0.37f;

    LikelihoodOutputs run(const Launchers& launchers, const LikelihoodInputs& in,
                          std::size_t shift = 0, bool in_place = false) {
        LikelihoodArrays arrays(stream(), in, shift);
        StoredArray separate(stream(), in.storage, in.product.size(), shift);
        auto d_bias = output(in.width());
        const kernels::LikelihoodGradient gradient = {
            .scale = kScale,
            .row_weight = in.is_weighted ? arrays.row_weight.data() : nullptr,
            .d_product = in_place ? kernels::Reals(arrays.product.data()) : separate.get(),
            .d_bias = d_bias.data()};
        launchers.forward_backward(arrays.input(), gradient, arrays.recon.data(),
                                   arrays.scratch.get(), stream().get());
        return {arrays.recon.download(), in_place ? arrays.product.download() : separate.download(),
                d_bias.download()};
    }

    std::vector<float> run_forward(const Launchers& launchers, const LikelihoodInputs& in,
                                   std::size_t shift = 0) {
        LikelihoodArrays arrays(stream(), in, shift);
        launchers.forward(arrays.input(), arrays.recon.data(), arrays.scratch.get(),
                          stream().get());
        return arrays.recon.download();
    }

    // A row sum adds at most 4 terms in a lane and 5 levels of the warp's tree in float, the rest
    // in double: 9 roundings and the last, besides those of each term.
    static std::vector<Bound> recon_of(const PixelReference& reference,
                                       const LikelihoodInputs& in) {
        std::vector<Bound> recon;
        for (std::size_t r = 0; r < in.shape.height(); ++r) {
            Sum sum;
            double error = 0;
            for (std::size_t c = 0; c < in.shape.width(); ++c) {
                const PixelLoss one = reference.loss(in.pre(r, c), in.pixel(r, c));
                sum.add(one.value, one.magnitude);
                error += one.error;
            }
            recon.push_back({sum.value, sum.within(10).tolerance + error});
        }
        return recon;
    }

    void check(const Launchers& launchers, const PixelReference& reference,
               const LikelihoodInputs& in, std::size_t shift = 0) {
        const LikelihoodOutputs out = run(launchers, in, shift);
        const std::vector<Bound> recon = recon_of(reference, in);
        const auto gradient = [&](std::size_t r, std::size_t column) {
            const std::size_t c = column % in.shape.width();
            const Bound one =
                reference.gradients(in.pre(r, c), in.pixel(r, c))[column / in.shape.width()];
            const double scale = in.is_weighted ? kScale * in.row_weight[r] : kScale;
            // Two roundings: of the row's weight and of the product with it.
            return Bound{scale * one.value,
                         scale * (one.tolerance + 2 * kEpsilon * std::abs(one.value))};
        };
        const Shape wide{in.shape.rows, static_cast<int>(in.width())};
        expect_close(out.recon, recon, "recon");
        expect_close(out.d_product, stored(each(wide, gradient), in.storage), "d_product");
        expect_close(out.d_bias, column_sums(wide, gradient), "d_bias");
        expect_close(run_forward(launchers, in, shift), recon, "recon without backward");
    }

    void check(const Launchers& launchers, const PixelReference& reference, const Shape& shape,
               std::size_t shift = 0, Storage storage = Storage::fp32) {
        SCOPED_TRACE(testing::Message() << shape);
        LikelihoodInputs in(shape, reference);
        in.storage = storage;
        check(launchers, reference, in, shift);
    }

    void check_every_size(const Launchers& launchers, const PixelReference& reference) {
        for (const Storage storage : kStorages) {
            for (const Shape& shape : ragged_shapes()) {
                check(launchers, reference, shape, 0, storage);
            }
        }
    }

    void check_large_sizes(const Launchers& launchers, const PixelReference& reference) {
        for (const Shape& shape : large_shapes()) check(launchers, reference, shape);
        check(launchers, reference, kEightRowsAWarp);
        check(launchers, reference, {128, 784}, 0, Storage::bf16);
    }

    void check_launch_paths(const Launchers& launchers, const PixelReference& reference) {
        std::size_t turn = 0;
        for (const Shape& shape : launch_paths()) {
            check(launchers, reference, shape, 0, kStorages[turn++ / 2 % 2]);
        }
    }

    void check_unaligned(const Launchers& launchers, const PixelReference& reference) {
        for (const Storage storage : kStorages) {
            for (const std::size_t shift : {2, 3}) {
                check(launchers, reference, {33, 128}, shift, storage);
            }
        }
    }

    // Several rows of one example, each with a weight of its own.
    void check_samples_and_weights(const Launchers& launchers, const PixelReference& reference) {
        for (const int samples : {1, 2, 3, 33}) {
            for (const int cols : {1, 33, 128, 300}) {
                SCOPED_TRACE(testing::Message() << samples << " samples, " << cols << " pixels");
                LikelihoodInputs in({66 * samples / (samples == 33 ? 3 : 1), cols}, reference,
                                    samples);
                in.is_weighted = true;
                check(launchers, reference, in);
                in.storage = Storage::bf16;
                check(launchers, reference, in);
            }
        }
    }

    void check_in_place_and_repeats(const Launchers& launchers, const PixelReference& reference) {
        for (const Shape& shape : {Shape{301, 260}, Shape{33, 101}}) {
            SCOPED_TRACE(testing::Message() << shape);
            const LikelihoodInputs in(shape, reference);
            const LikelihoodOutputs out = run(launchers, in);
            for (const bool in_place : {false, true}) {
                const LikelihoodOutputs again = run(launchers, in, 0, in_place);
                expect_same_bits(again.recon, out.recon, "recon");
                expect_same_bits(again.d_product, out.d_product, "d_product");
                expect_same_bits(again.d_bias, out.d_bias, "d_bias");
            }
        }
    }

    // A NaN in an output, its bias or x must reach the loss of its rows and the gradients of its
    // pixel, and no other pixel; a NaN weight all gradients of its row and no loss.
    void check_nan(const Launchers& launchers, const PixelReference& reference) {
        constexpr std::size_t kPixels = 300;
        constexpr std::size_t kPixel = 157;
        enum Where { in_x, in_weight, in_product, in_bias };
        for (int turn = 0; turn < 2 * (2 + 2 * reference.outputs); ++turn) {
            SCOPED_TRACE(turn);
            const int where = turn / 2;
            LikelihoodInputs in({3, kPixels}, reference);
            in.is_weighted = true;
            in.storage = kStorages[turn % 2];
            const int kind = where < 2 ? where : in_product + where % 2;
            const std::size_t column =
                where < 2 ? kPixel : static_cast<std::size_t>(where / 2 - 1) * kPixels + kPixel;
            if (kind == in_x) in.x[kPixels + kPixel] = kNan;
            if (kind == in_weight) in.row_weight[1] = kNan;
            if (kind == in_product) in.product[in.width() + column] = kNan;
            if (kind == in_bias) in.bias[column] = kNan;
            const LikelihoodOutputs out = run(launchers, in);
            const std::vector<float> forward = run_forward(launchers, in);
            for (std::size_t r = 0; r < 3; ++r) {
                const bool is_lost = kind == in_bias || (r == 1 && kind != in_weight);
                EXPECT_EQ(std::isnan(out.recon[r]), is_lost) << r;
                EXPECT_EQ(std::isnan(forward[r]), is_lost) << r;
            }
            EXPECT_TRUE(std::isnan(out.d_product[in.width() + column]));
            EXPECT_EQ(std::isnan(out.d_product[in.width() + column + 1]), kind == in_weight);
            EXPECT_TRUE(std::isnan(out.d_bias[column]));
            for (std::size_t c = 0; c < in.width(); ++c) {
                if (c % kPixels == kPixel) continue;
                EXPECT_EQ(std::isnan(out.d_bias[c]), kind == in_weight) << c;
            }
        }
    }

    // What every launcher refuses.
    void check_bad_requests(const Launchers& launchers) {
        auto array = output(64);
        DeviceScratch scratch(stream(), 8, 4, 2);
        kernels::LikelihoodInput in = {array.data(), array.data(), array.data(), 8, 4, 1};
        const auto expect_refused = [&](const kernels::Scratch& memory) {
            EXPECT_THROW(launchers.forward(in, array.data(), memory, stream().get()),
                         std::invalid_argument);
            EXPECT_THROW(launchers.forward_backward(in, {1, nullptr, array.data(), array.data()},
                                                    array.data(), memory, stream().get()),
                         std::invalid_argument);
        };
        for (int* number : {&in.rows, &in.pixels}) {
            const int good = *number;
            *number = -1;
            expect_refused(scratch.get());
            *number = good;
        }
        for (const int samples : {0, -1, 3}) {
            in.samples = samples;
            expect_refused(scratch.get());
        }
        in.samples = 1;
        expect_refused({});
        kernels::Scratch small = scratch.get();
        small.tickets_size = 0;
        expect_refused(small);
        // A gradient in bf16 in place of the product.
        EXPECT_THROW(launchers.forward_backward(
                         in, {1, nullptr, {array.data(), Storage::bf16}, array.data()},
                         array.data(), scratch.get(), stream().get()),
                     std::invalid_argument);
    }
};

}  // namespace vae::test
