#include "kernels/softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <stdexcept>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

struct Case {
    int rows;
    int groups;
    int classes;
    bool is_onehot;
    int samples = 1;
    bool is_weighted = false;
    Storage storage = Storage::fp32;  // of d_product

    int pixels() const { return is_onehot ? groups * classes : groups; }
    std::size_t outputs() const { return static_cast<std::size_t>(groups * classes); }
    std::size_t height() const { return static_cast<std::size_t>(rows); }
    kernels::SoftmaxSettings settings() const { return {classes, is_onehot}; }
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.rows << " rows, " << c.groups << " groups of " << c.classes
               << (c.is_onehot ? ", one-hot" : "") << ", " << c.samples << " samples, seed "
               << kSeed;
}

struct Inputs {
    explicit Inputs(const Case& of)
        : c(of),
          product(random_normals(c.height() * c.outputs(), 1, 3.0f)),
          bias(random_normals(c.outputs(), 2)),
          row_weight(random_uniforms(c.height(), 4)) {
        for (std::size_t i = 0; i < product.size(); i += 13) product[i] = i % 2 == 0 ? 80 : -80;
        const std::size_t examples = c.height() / static_cast<std::size_t>(c.samples);
        const auto groups = static_cast<std::size_t>(c.groups);
        const auto classes = static_cast<std::size_t>(c.classes);
        const auto uniforms = random_uniforms(examples * groups, 3);
        x.assign(examples * static_cast<std::size_t>(c.pixels()), 0.0f);
        for (std::size_t i = 0; i < uniforms.size(); ++i) {
            auto chosen = static_cast<std::size_t>(uniforms[i] * static_cast<float>(classes));
            chosen = std::min(chosen, classes - 1);
            chosen_class.push_back(chosen);
            if (c.is_onehot) {
                x[i * classes + chosen] = 1;
            } else {
                x[i] = static_cast<float>(chosen) / static_cast<float>(classes - 1);
            }
        }
    }

    double logit(std::size_t row, std::size_t column) const {
        return product[row * c.outputs() + column] + bias[column];  // rounded as in the kernel
    }
    std::size_t target(std::size_t row, std::size_t group) const {
        const std::size_t example = row / static_cast<std::size_t>(c.samples);
        return chosen_class[example * static_cast<std::size_t>(c.groups) + group];
    }

    Case c;
    std::vector<float> product;
    std::vector<float> bias;
    std::vector<float> x;
    std::vector<float> row_weight;
    std::vector<std::size_t> chosen_class;
};

struct Outputs {
    std::vector<float> recon;
    std::vector<float> d_product;
    std::vector<float> d_bias;
    std::vector<float> recon_alone;
    std::vector<float> mean;
};

class Softmax : public KernelTest {
  protected:
    static constexpr float kScale = 0.37f;

    Outputs run(const Inputs& in, bool in_place = false, std::size_t shift = 0) {
        const Case& c = in.c;
        const auto settings = c.settings();
        auto product = upload(in.product, shift);
        auto bias = upload(in.bias, shift);
        auto x = upload(in.x, shift);
        auto weight = upload(in.row_weight);
        auto recon = output(c.height());
        auto alone = output(c.height());
        StoredArray separate(stream(), c.storage, in.product.size(), shift);
        auto d_bias = output(c.outputs());
        auto mean = output(c.height() * static_cast<std::size_t>(c.pixels()));
        auto partials =
            output(kernels::softmax_scratch_size(c.rows, c.pixels(), settings).partials);
        const kernels::Scratch scratch = {partials.data(), partials.size(), nullptr, 0};
        const kernels::LikelihoodInput input = {product.data(), bias.data(), x.data(),
                                                c.rows,         c.pixels(),  c.samples};
        kernels::softmax_mean(input, settings, mean.data(), stream().get());
        kernels::softmax_forward(input, settings, alone.data(), scratch, stream().get());
        kernels::softmax_forward_backward(
            input, settings,
            {kScale, c.is_weighted ? weight.data() : nullptr,
             in_place ? kernels::Reals(product.data()) : separate.get(), d_bias.data()},
            recon.data(), scratch, stream().get());
        return {recon.download(), in_place ? product.download() : separate.download(),
                d_bias.download(), alone.download(), mean.download()};
    }

    void check(const Case& c, std::size_t shift = 0);
};

// Of one group in double.
struct Reference {
    Reference(const Inputs& in, std::size_t row, std::size_t group)
        : first(group * static_cast<std::size_t>(in.c.classes)) {
        for (int k = 0; k < in.c.classes; ++k) {
            logits.push_back(in.logit(row, first + static_cast<std::size_t>(k)));
            largest = std::max(largest, logits.back());
        }
        for (const double l : logits) sum += std::exp(l - largest);
    }
    double probability(std::size_t k) const { return std::exp(logits[k] - largest) / sum; }
    // The exponential of a difference that is rounded once, 4 roundings of its own; their sum over
    // 5 levels and up to 32 elements; the quotient.
    double probability_error(std::size_t k) const {
        return kEpsilon * probability(k) * (largest - logits[k] + 90);
    }

    std::size_t first;
    std::vector<double> logits;
    double largest = -INFINITY;
    double sum = 0;
};

void Softmax::check(const Case& c, std::size_t shift) {
    SCOPED_TRACE(testing::Message() << c);
    const Inputs in(c);
    const Outputs out = run(in, false, shift);
    const auto classes = static_cast<std::size_t>(c.classes);
    std::vector<Bound> recon;
    std::vector<Bound> means;
    std::vector<Bound> d_product(in.product.size());
    for (std::size_t r = 0; r < c.height(); ++r) {
        Sum loss;
        for (std::size_t g = 0; g < static_cast<std::size_t>(c.groups); ++g) {
            const Reference group(in, r, g);
            const std::size_t target = in.target(r, g);
            const double distance = group.largest - group.logits[target];
            // The logarithm takes the sum's 90 roundings relatively.
            loss.add(distance + std::log(group.sum), distance + std::log(group.sum) + 1);
            Bound expected;
            for (std::size_t k = 0; k < classes; ++k) {
                const double p = group.probability(k);
                const double t = k == target ? 1 : 0;
                const double weight = kScale * (c.is_weighted ? in.row_weight[r] : 1.0f);
                d_product[r * c.outputs() + group.first + k] = {
                    weight * (p - t),
                    weight * (group.probability_error(k) + 4 * kEpsilon * std::abs(p - t))};
                const double level = static_cast<double>(k) / static_cast<double>(classes - 1);
                expected.value += p * level;
                expected.tolerance +=
                    group.probability_error(k) * level + 40 * kEpsilon * p * level;
                if (c.is_onehot) means.push_back({p, group.probability_error(k)});
            }
            if (!c.is_onehot) means.push_back(expected);
        }
        recon.push_back(loss.within(100));
    }
    expect_close(out.recon, recon, "recon");
    expect_close(out.recon_alone, recon, "recon without backward");
    expect_close(out.d_product, stored(d_product, c.storage), "d_product");
    expect_close(out.mean, means, "mean");
    const Shape wide{c.rows, static_cast<int>(c.outputs())};
    expect_close(out.d_bias,
                 column_sums(wide, [&](std::size_t r,
                                       std::size_t k) { return d_product[r * c.outputs() + k]; }),
                 "d_bias");
}

// Class counts on both sides of every number of registers, rows on both sides of a block of 64.
TEST_F(Softmax, EverySize) {
    for (const bool is_onehot : {false, true}) {
        for (const int classes : {2, 3, 31, 32, 33, 64, 65, 128, 129, 256, 257, 1024}) {
            for (const int rows : {1, 9, 65}) check({rows, 3, classes, is_onehot});
        }
        for (const int groups : {1, 2, 31, 32, 33, 101}) check({11, groups, 5, is_onehot});
        for (const int rows : {31, 63, 64, 127, 128, 129}) check({rows, 7, 10, is_onehot});
    }
}

TEST_F(Softmax, GradientStoredAsBf16) {
    for (const bool is_onehot : {false, true}) {
        for (const int classes : {2, 33, 64, 128, 257}) {
            for (const int rows : {1, 65}) {
                check({rows, 3, classes, is_onehot, 1, false, Storage::bf16});
            }
        }
        check({66, 5, 7, is_onehot, 3, true, Storage::bf16});
        check({33, 5, 64, is_onehot, 1, false, Storage::bf16}, 1);
    }
}

TEST_F(Softmax, NothingGivesZeroSums) {
    for (const Case& c : {Case{0, 3, 4, false}, Case{0, 3, 4, true}}) {
        const Outputs out = run(Inputs(c));
        EXPECT_EQ(out.d_bias, std::vector<float>(12, 0.0f));
    }
    const Outputs out = run(Inputs({5, 0, 4, false}));
    EXPECT_EQ(out.recon, std::vector<float>(5, 0.0f));
    EXPECT_EQ(out.recon_alone, std::vector<float>(5, 0.0f));
}

TEST_F(Softmax, UnalignedArrays) {
    check({33, 5, 64, false}, 1);
    check({33, 5, 64, true}, 3);
}

TEST_F(Softmax, SamplesAndRowWeights) {
    for (const bool is_onehot : {false, true}) {
        for (const int samples : {1, 2, 3, 33}) check({66, 5, 7, is_onehot, samples, true});
    }
}

TEST_F(Softmax, InPlaceAndRepeatsBitForBit) {
    for (const bool is_onehot : {false, true}) {
        const Inputs in({131, 9, 100, is_onehot});
        const Outputs out = run(in);
        for (const bool in_place : {false, true}) {
            const Outputs again = run(in, in_place);
            expect_same_bits(again.recon, out.recon, "recon");
            expect_same_bits(again.d_product, out.d_product, "d_product");
            expect_same_bits(again.d_bias, out.d_bias, "d_bias");
            expect_same_bits(again.mean, out.mean, "mean");
        }
    }
}

// A NaN reaches its row's loss, its group's gradients and means, and nothing else.
TEST_F(Softmax, NanComesThrough) {
    constexpr std::size_t kClasses = 40;
    constexpr std::size_t kGroup = 2;
    for (const bool is_onehot : {false, true}) {
        for (int turn = 0; turn < 6; ++turn) {
            SCOPED_TRACE(turn);
            const int where = turn / 2;
            Inputs in({3, 5, kClasses, is_onehot, 1, false, kStorages[turn % 2]});
            const std::size_t column = kGroup * kClasses + 7;
            const auto pixels = static_cast<std::size_t>(in.c.pixels());
            if (where == 0) in.product[in.c.outputs() + column] = kNan;
            if (where == 1) in.x[pixels + (is_onehot ? column : kGroup)] = kNan;
            if (where == 2) in.bias[column] = kNan;
            const Outputs out = run(in);
            for (std::size_t r = 0; r < 3; ++r) {
                EXPECT_EQ(std::isnan(out.recon[r]), where == 2 || r == 1) << r;
                EXPECT_EQ(std::isnan(out.recon_alone[r]), where == 2 || r == 1) << r;
            }
            EXPECT_TRUE(std::isnan(out.d_product[in.c.outputs() + column]));
            EXPECT_TRUE(std::isnan(out.d_bias[column]));
            EXPECT_FALSE(std::isnan(out.d_bias[column + kClasses]));
            EXPECT_EQ(std::isnan(out.mean[pixels + (is_onehot ? column : kGroup)]), where != 1);
            EXPECT_FALSE(std::isnan(out.mean[pixels]));
        }
    }
}

TEST_F(Softmax, BadRequestsThrow) {
    auto array = output(4096);
    const auto refused = [&](int rows, int pixels, int samples, kernels::SoftmaxSettings settings,
                             std::size_t memory) {
        const kernels::LikelihoodInput in = {array.data(), array.data(), array.data(),
                                             rows,         pixels,       samples};
        const kernels::Scratch scratch = {array.data(), memory, nullptr, 0};
        EXPECT_THROW(kernels::softmax_forward(in, settings, array.data(), scratch, stream().get()),
                     std::invalid_argument);
        EXPECT_THROW(kernels::softmax_forward_backward(in, settings,
                                                       {1, nullptr, array.data(), array.data()},
                                                       array.data(), scratch, stream().get()),
                     std::invalid_argument);
    };
    refused(-1, 8, 1, {4, false}, 4096);
    refused(8, -8, 1, {4, false}, 4096);
    refused(8, 8, 3, {4, false}, 4096);
    refused(8, 8, 0, {4, false}, 4096);
    refused(8, 8, 1, {1, false}, 4096);
    refused(8, 8, 1, {1025, false}, 4096);
    refused(8, 8, 1, {3, true}, 4096);
    refused(8, 8, 1, {4, false}, kernels::softmax_scratch_size(8, 8, {4, false}).partials - 1);
    // A gradient in bf16 in place of the product.
    EXPECT_THROW(kernels::softmax_forward_backward(
                     {array.data(), array.data(), array.data(), 8, 8, 1}, {4, false},
                     {1, nullptr, {array.data(), Storage::bf16}, array.data()}, array.data(),
                     {array.data(), 4096, nullptr, 0}, stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
