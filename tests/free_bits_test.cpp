#include "kernels/free_bits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/reparameterize_reference.h"

namespace vae::test {
namespace {

struct Outputs {
    std::vector<float> kl_mask, loss_kl;
};

class FreeBits : public KernelTest {
  protected:
    Outputs per_dimension(const Heads& in, float nats, std::size_t shift = 0) {
        auto product = upload(in.product, shift);
        auto mu_bias = upload(in.mu_bias, shift);
        auto logvar_bias = upload(in.logvar_bias, shift);
        auto kl_mask = output(in.latent.width(), shift);
        auto loss_kl = output(in.latent.height(), shift);
        DeviceScratch scratch(stream(), in.shape.examples, in.shape.latent);
        kernels::free_bits_per_dimension({.product = product.data(),
                                          .mu_bias = mu_bias.data(),
                                          .logvar_bias = logvar_bias.data(),
                                          .examples = in.shape.examples,
                                          .latent = in.shape.latent,
                                          .stride = in.shape.stride,
                                          .logvar_min = kLow,
                                          .logvar_max = kHigh},
                                         nats, kl_mask.data(), loss_kl.data(), scratch.get(),
                                         stream().get());
        return {kl_mask.download(), loss_kl.download()};
    }

    Outputs in_total(const std::vector<float>& kl, int latent, float nats) {
        auto kl_of = upload(kl);
        auto kl_mask = output(static_cast<std::size_t>(latent));
        auto loss_kl = output(kl.size());
        kernels::free_bits_in_total(kl_of.data(), static_cast<int>(kl.size()), latent, nats,
                                    kl_mask.data(), loss_kl.data(), stream().get());
        return {kl_mask.download(), loss_kl.download()};
    }

    // An element's KL has 7 roundings, in terms of these magnitudes.
    static Sum element(const Heads& in, std::size_t b, std::size_t j) {
        Sum sum;
        sum.add(in.mu(b, j) * in.mu(b, j) / 2);
        sum.add(std::expm1(in.logvar(b, j)) / 2);
        sum.add(-in.logvar(b, j) / 2);
        return sum;
    }

    static std::vector<double> means(const Heads& in) {
        std::vector<double> all(in.latent.width());
        for (std::size_t b = 0; b < in.latent.height(); ++b) {
            for (std::size_t j = 0; j < all.size(); ++j) {
                all[j] += element(in, b, j).value / static_cast<double>(in.latent.height());
            }
        }
        return all;
    }

    // A floor that about half of the means lie under, and none on.
    static float between(std::vector<double> means) {
        if (means.empty()) return 1;
        if (means.size() == 1) return static_cast<float>(means[0] * 1.5);
        std::sort(means.begin(), means.end());
        const std::size_t middle = means.size() / 2;
        return static_cast<float>((means[middle - 1] + means[middle]) / 2);
    }

    void check(const HeadsShape& shape, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << shape.examples << " examples, " << shape.latent
                                        << " latents in " << shape.stride << ", seed " << kSeed);
        const Heads in(shape);
        const auto mean = means(in);
        const float nats = between(mean);
        const Outputs out = per_dimension(in, nats, shift);
        if (in.latent.size() == 0) return;
        std::vector<Bound> mask;
        mask.reserve(mean.size());
        for (const double each : mean) mask.push_back({each > nats ? 1.0 : 0.0, 0});
        expect_close(out.kl_mask, mask, "kl_mask");
        std::vector<Bound> loss;
        for (std::size_t b = 0; b < in.latent.height(); ++b) {
            Sum sum;
            for (std::size_t j = 0; j < in.latent.width(); ++j) {
                const Sum own = element(in, b, j);
                if (mean[j] > nats) {
                    sum.add(own.value, own.magnitude);
                } else {
                    sum.add(nats);
                }
            }
            // At most 10 terms in a lane and 5 levels of the tree.
            loss.push_back(sum.within(22));
        }
        expect_close(out.loss_kl, loss, "loss_kl");
    }
};

TEST_F(FreeBits, EveryRaggedSize) {
    for (const HeadsShape& shape : all_shapes()) {
        if (shape.samples == 1 && !shape.is_weighted) check(shape);
    }
}

TEST_F(FreeBits, LaunchPaths) {
    for (const Shape& shape : launch_paths()) {
        if (shape.rows > 1) check({shape.rows, shape.cols, shape.cols});
    }
}

TEST_F(FreeBits, UnalignedArrays) {
    check({33, 32, 32}, 1);
    check({33, 64, 64}, 2);
}

TEST_F(FreeBits, RepeatsBitForBit) {
    const Heads in({4099, 20, 24});
    const Outputs out = per_dimension(in, 2);
    const Outputs again = per_dimension(in, 2);
    expect_same_bits(again.kl_mask, out.kl_mask, "kl_mask");
    expect_same_bits(again.loss_kl, out.loss_kl, "loss_kl");
}

TEST_F(FreeBits, NanComesThrough) {
    Heads in({33, 20, 32});
    in.product[5 * in.pitch + 7] = kNan;
    const Outputs out = per_dimension(in, 1e6f);
    for (std::size_t j = 0; j < 20; ++j) EXPECT_EQ(out.kl_mask[j], j == 7 ? 1.0f : 0.0f) << j;
    for (std::size_t b = 0; b < 33; ++b) EXPECT_EQ(std::isnan(out.loss_kl[b]), b == 5) << b;

    std::vector<float> kl = random_uniforms(33, 1);
    kl[3] = kNan;
    const Outputs total = in_total(kl, 4, 1e6f);
    for (const float mask : total.kl_mask) EXPECT_EQ(mask, 1.0f);
    EXPECT_TRUE(std::isnan(total.loss_kl[3]));
}

TEST_F(FreeBits, InTotalEveryRaggedSize) {
    for (const int examples : {0, 1, 31, 32, 33, 511, 512, 513, 1021}) {
        for (const int latent : {0, 1, 20, 513}) {
            SCOPED_TRACE(testing::Message() << examples << " examples, " << latent << " latents");
            const auto kl = random_uniforms(static_cast<std::size_t>(examples), 1);
            double mean = 0;
            for (const float value : kl) mean += value / static_cast<double>(examples);
            for (const bool above : {false, true}) {
                const auto nats = static_cast<float>(mean * (above ? 0.999 : 1.001));
                const Outputs out = in_total(kl, latent, nats);
                if (examples == 0) continue;
                for (const float mask : out.kl_mask) ASSERT_EQ(mask, above ? 1.0f : 0.0f);
                for (std::size_t b = 0; b < kl.size(); ++b) {
                    ASSERT_EQ(out.loss_kl[b], above ? kl[b] : nats) << b;
                }
            }
        }
    }
}

// The floor itself is under it.
TEST_F(FreeBits, AMeanOnTheFloorIsNotAbove) {
    EXPECT_EQ(in_total({1, 2, 3}, 1, 2).kl_mask.at(0), 0.0f);
    Heads in({2, 4, 4});
    std::fill(in.product.begin(), in.product.end(), 0.0f);
    std::fill(in.mu_bias.begin(), in.mu_bias.end(), 2.0f);
    std::fill(in.logvar_bias.begin(), in.logvar_bias.end(), 0.0f);
    for (const float mask : per_dimension(in, 2).kl_mask) EXPECT_EQ(mask, 0.0f);
    for (const float mask : per_dimension(in, 1.9999f).kl_mask) EXPECT_EQ(mask, 1.0f);
}

TEST_F(FreeBits, BadRequestsThrow) {
    auto array = output(64);
    const auto request = [&](int examples, int latent, int stride) {
        kernels::free_bits_per_dimension({.product = array.data(),
                                          .mu_bias = array.data(),
                                          .logvar_bias = array.data(),
                                          .examples = examples,
                                          .latent = latent,
                                          .stride = stride},
                                         1, array.data(), array.data(), {}, stream().get());
    };
    EXPECT_THROW(request(-1, 4, 4), std::invalid_argument);
    EXPECT_THROW(request(4, -1, 4), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 3), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4), std::invalid_argument) << "no scratch";
    EXPECT_THROW(kernels::free_bits_in_total(array.data(), -1, 4, 1, array.data(), array.data(),
                                             stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
