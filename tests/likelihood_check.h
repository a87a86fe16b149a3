// What the tests of both likelihoods do alike: run on random inputs, compare recon, d_product and
// d_bias with double, and look for NaN, repeatability and empty sizes.
#pragma once

#include <functional>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {

struct LikelihoodInputs {
    explicit LikelihoodInputs(const Shape& s)
        : shape(s),
          product(random_normals(s.size(), 1, 3.0f)),
          bias(random_normals(s.width(), 2)),
          x(random_uniforms(s.size(), 3)) {
        for (std::size_t i = 0; i < product.size(); i += 13) product[i] = i % 2 == 0 ? 200 : -200;
        for (std::size_t i = 0; i < x.size(); i += 3) x[i] = i % 2 == 0 ? 0.0f : 1.0f;
    }
    double pre(std::size_t r, std::size_t c) const {
        return product[r * shape.width() + c] + bias[c];
    }
    double pixel(std::size_t r, std::size_t c) const { return x[r * shape.width() + c]; }

    Shape shape;
    std::vector<float> product;
    std::vector<float> bias;
    std::vector<float> x;
};

struct LikelihoodOutputs {
    std::vector<float> recon;
    std::vector<float> d_product;
    std::vector<float> d_bias;
};

// A likelihood of one pixel in double: its terms, and the gradient without scale.
struct PixelReference {
    std::function<Sum(double m, double x)> loss;
    std::function<Bound(double m, double x)> gradient;
};

struct Launchers {
    std::function<void(const float* product, const float* bias, const float* x, const Shape& shape,
                       float* recon, const kernels::Scratch& scratch, cudaStream_t stream)>
        forward;
    std::function<void(const float* product, const float* bias, const float* x, const Shape& shape,
                       float scale, float* recon, float* d_product, float* d_bias,
                       const kernels::Scratch& scratch, cudaStream_t stream)>
        forward_backward;
};

class LikelihoodTest : public KernelTest {
  protected:
    static constexpr float kScale = 0.37f;

    LikelihoodOutputs run(const Launchers& launchers, const LikelihoodInputs& in,
                          std::size_t shift = 0, bool in_place = false) {
        auto product = upload(in.product, shift);
        auto bias = upload(in.bias, shift);
        auto x = upload(in.x, shift);
        auto recon = output(in.shape.height());
        auto separate = output(in.shape.size(), shift);
        auto d_bias = output(in.shape.width());
        auto& d_product = in_place ? product : separate;
        DeviceScratch scratch(stream(), in.shape.rows, in.shape.cols);
        launchers.forward_backward(product.data(), bias.data(), x.data(), in.shape, kScale,
                                   recon.data(), d_product.data(), d_bias.data(), scratch.get(),
                                   stream().get());
        return {recon.download(), d_product.download(), d_bias.download()};
    }

    std::vector<float> run_forward(const Launchers& launchers, const LikelihoodInputs& in,
                                   std::size_t shift = 0) {
        auto product = upload(in.product, shift);
        auto bias = upload(in.bias, shift);
        auto x = upload(in.x, shift);
        auto recon = output(in.shape.height());
        DeviceScratch scratch(stream(), in.shape.rows, in.shape.cols);
        launchers.forward(product.data(), bias.data(), x.data(), in.shape, recon.data(),
                          scratch.get(), stream().get());
        return recon.download();
    }

    // A row sum adds at most 4 terms in a lane and 5 levels of the warp's tree in float, the rest
    // in double: 9 roundings and the last, besides those of each term.
    void check(const Launchers& launchers, const PixelReference& reference, double loss_roundings,
               const Shape& shape, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape);
        const LikelihoodOutputs out = run(launchers, in, shift);
        std::vector<Bound> recon;
        for (std::size_t r = 0; r < shape.height(); ++r) {
            Sum sum;
            for (std::size_t c = 0; c < shape.width(); ++c) {
                const Sum one = reference.loss(in.pre(r, c), in.pixel(r, c));
                sum.add(one.value, one.magnitude);
            }
            recon.push_back(sum.within(10 + loss_roundings));
        }
        const auto gradient = [&](std::size_t r, std::size_t c) {
            const Bound one = reference.gradient(in.pre(r, c), in.pixel(r, c));
            const double scale = kScale;
            return Bound{scale * one.value,
                         scale * (one.tolerance + kEpsilon * std::abs(one.value))};
        };
        expect_close(out.recon, recon, "recon");
        expect_close(out.d_product, each(shape, gradient), "d_product");
        expect_close(out.d_bias, column_sums(shape, gradient), "d_bias");
        expect_close(run_forward(launchers, in, shift), recon, "recon without backward");
    }

    void check_in_place_and_repeats(const Launchers& launchers, const Shape& shape) {
        SCOPED_TRACE(testing::Message() << shape);
        const LikelihoodInputs in(shape);
        const LikelihoodOutputs out = run(launchers, in);
        for (const bool in_place : {false, true}) {
            const LikelihoodOutputs again = run(launchers, in, 0, in_place);
            expect_same_bits(again.recon, out.recon, "recon");
            expect_same_bits(again.d_product, out.d_product, "d_product");
            expect_same_bits(again.d_bias, out.d_bias, "d_bias");
        }
    }

    // A NaN in product, bias or x must reach the loss of its rows and the gradients of its column,
    // and nothing else.
    void check_nan(const Launchers& launchers) {
        const Shape shape{3, 300};
        for (int where = 0; where < 3; ++where) {
            SCOPED_TRACE(where);
            LikelihoodInputs in(shape);
            const std::size_t column = 157;
            if (where == 0) in.product[300 + column] = kNan;
            if (where == 1) in.x[300 + column] = kNan;
            if (where == 2) in.bias[column] = kNan;
            const LikelihoodOutputs out = run(launchers, in);
            const std::vector<float> forward = run_forward(launchers, in);
            for (std::size_t r = 0; r < 3; ++r) {
                EXPECT_EQ(std::isnan(out.recon[r]), where == 2 || r == 1) << r;
                EXPECT_EQ(std::isnan(forward[r]), where == 2 || r == 1) << r;
            }
            EXPECT_TRUE(std::isnan(out.d_product[300 + column]));
            EXPECT_FALSE(std::isnan(out.d_product[300 + column + 1]));
            for (std::size_t c = 0; c < 300; ++c) {
                EXPECT_EQ(std::isnan(out.d_bias[c]), c == column) << c;
            }
        }
    }
};

}  // namespace vae::test
