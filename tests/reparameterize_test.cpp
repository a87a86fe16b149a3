#include "kernels/reparameterize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>
#include <vector>

#include "host/noise.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/reparameterize_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

using kernels::HeadsView;

struct ForwardOutputs {
    std::vector<float> mu, logvar, epsilon, z, kl, log_ratio;
};

struct BackwardOutputs {
    std::vector<float> d_product, d_mu_bias, d_logvar_bias;
};

class Reparameterize : public KernelTest {
  protected:
    ForwardOutputs forward(const Heads& in, std::size_t shift = 0) {
        auto product = upload(in.product, shift);
        auto mu_bias = upload(in.mu_bias, shift);
        auto logvar_bias = upload(in.logvar_bias, shift);
        auto index = upload(in.index);
        auto mu = output(in.latent.size(), shift);
        auto logvar = output(in.latent.size(), shift);
        auto kl = output(in.latent.height());
        auto epsilon = output(in.draws.size(), shift);
        auto z = output(in.draws.size(), shift);
        auto log_ratio = output(in.draws.height());
        const HeadsView heads = view(in, product.data(), mu_bias.data(), logvar_bias.data());
        kernels::reparameterize_forward(
            heads, source_of(index.data()),
            {mu.data(), logvar.data(), kl.data(), epsilon.data(), z.data(), log_ratio.data()},
            stream().get());
        auto only_z = output(in.draws.size());
        DeviceArray<Bf16> rounded_z(stream(), in.draws.size(), shift);
        kernels::reparameterize_forward(heads, source_of(index.data()),
                                        {.z = only_z.data(), .rounded_z = rounded_z.data()},
                                        stream().get());
        if (in.draws.size() > 0) {
            expect_same_bits(only_z.download(), z.download(), "z alone");
            expect_rounded(rounded_z.download(), z.download(), "rounded_z");
        }
        return {mu.download(), logvar.download(), epsilon.download(),
                z.download(),  kl.download(),     log_ratio.download()};
    }

    // d_product as it is stored.
    BackwardOutputs backward(const Heads& in, std::size_t shift = 0,
                             Storage storage = Storage::fp32) {
        auto product = upload(in.product, shift);
        auto mu_bias = upload(in.mu_bias, shift);
        auto logvar_bias = upload(in.logvar_bias, shift);
        auto index = upload(in.index);
        auto d_z = upload(in.d_z, shift);
        auto path = upload(in.path);
        auto ratio = upload(in.ratio);
        auto score = upload(in.score);
        auto kl_mask = upload(in.kl_mask, shift);
        auto prior_score = upload(in.prior_score, shift);
        StoredArray d_product(stream(), storage, in.product.size(), shift);
        auto d_mu_bias = output(in.latent.width());
        auto d_logvar_bias = output(in.latent.width());
        DeviceScratch scratch(stream(), in.shape.examples, 2 * in.shape.stride);
        kernels::LatentGradient gradient;
        gradient.d_z = d_z.data();
        gradient.scale = kScale;
        gradient.kl_scale = kKlScale;
        if (in.shape.is_weighted) {
            gradient.path = path.data();
            gradient.ratio = ratio.data();
            gradient.score = score.data();
            gradient.kl_mask = kl_mask.data();
        }
        if (in.shape.has_prior) gradient.prior_score = prior_score.data();
        kernels::reparameterize_backward(
            view(in, product.data(), mu_bias.data(), logvar_bias.data()), source_of(index.data()),
            gradient, d_product.get(), d_mu_bias.data(), d_logvar_bias.data(), scratch.get(),
            stream().get());
        return {d_product.download(), d_mu_bias.download(), d_logvar_bias.download()};
    }

    static HeadsView view(const Heads& in, const float* product, const float* mu_bias,
                          const float* logvar_bias) {
        return {product,
                mu_bias,
                logvar_bias,
                in.shape.examples,
                in.shape.samples,
                in.shape.latent,
                in.shape.stride,
                kLow,
                kHigh};
    }

    void check_forward(const Heads& in, const ForwardOutputs& out) {
        const std::size_t width = in.latent.width();
        const std::size_t samples = in.samples();
        std::vector<double> noise(in.draws.size());
        for (std::size_t r = 0; r < in.draws.height(); ++r) {
            fill_normal({noise_stream().seed, Purpose::epsilon, noise_stream().step,
                         kFirstIndex + in.index[r / samples],
                         noise_stream().sample + static_cast<std::uint32_t>(r % samples)},
                        std::span(noise).subspan(r * width, width));
        }
        // The radius, up to 6.8, times an error of sine and cosine of about 1e-6 on a GPU, where
        // cuRAND takes them from the fast unit.
        expect_close(out.epsilon,
                     each(in.draws,
                          [&](auto r, auto j) {
                              return Bound{noise[r * width + j], 1e-5};
                          }),
                     "epsilon");
        expect_close(out.mu,
                     each(in.latent,
                          [&](auto b, auto j) {
                              return Bound{in.mu(b, j), 0};
                          }),
                     "mu");
        expect_close(out.logvar,
                     each(in.latent,
                          [&](auto b, auto j) {
                              return Bound{in.logvar(b, j), 0};
                          }),
                     "logvar");
        // exp is good to 2 units beside the nearest float, which are 5 roundings; a product and a
        // sum.
        expect_close(out.z,
                     each(in.draws,
                          [&](auto r, auto j) {
                              Sum sum;
                              sum.add(in.mu(r / samples, j));
                              sum.add(in.sigma(r / samples, j) * out.epsilon[r * width + j]);
                              return sum.within(7);
                          }),
                     "z");
        expect_close(out.kl, kl_bounds(in), "kl");
        expect_close(out.log_ratio, log_ratio_bounds(in, out.epsilon), "log_ratio");
    }

    // A warp's sum: at most 12 terms in a lane and 5 levels of the tree, besides 5 roundings a
    // term.
    static std::vector<Bound> kl_bounds(const Heads& in) {
        std::vector<Bound> kl;
        for (std::size_t b = 0; b < in.latent.height(); ++b) {
            Sum sum;
            for (std::size_t j = 0; j < in.latent.width(); ++j) {
                sum.add(in.mu(b, j) * in.mu(b, j) / 2);
                sum.add(std::expm1(in.logvar(b, j)) / 2);
                sum.add(-in.logvar(b, j) / 2);
            }
            kl.push_back(sum.within(22));
        }
        return kl;
    }

    // log N(z; mu, sigma²) − log N(z; 0, 1), from the densities themselves. The factors of a term
    // have 5 roundings, 3 of them expm1's, and 7, of z and of a sum; 2 more are a term's own, and
    // 16 the sum's.
    static std::vector<Bound> log_ratio_bounds(const Heads& in, const std::vector<float>& epsilon) {
        const std::size_t width = in.latent.width();
        std::vector<Bound> bounds;
        for (std::size_t r = 0; r < in.draws.height(); ++r) {
            const std::size_t b = r / in.samples();
            Sum sum;
            for (std::size_t j = 0; j < width; ++j) {
                const double e = epsilon[r * width + j];
                const double mu = in.mu(b, j);
                const double z = mu + in.sigma(b, j) * e;
                const double shift = std::abs(mu) + std::abs(std::expm1(in.logvar(b, j) / 2) * e);
                sum.add((z * z - e * e - in.logvar(b, j)) / 2,
                        (shift * (std::abs(mu) + (in.sigma(b, j) + 1) * std::abs(e)) +
                         std::abs(in.logvar(b, j))) /
                            2);
            }
            bounds.push_back(sum.within(30));
        }
        return bounds;
    }

    void check_backward(const Heads& in, const BackwardOutputs& out,
                        const std::vector<float>& epsilon, Storage storage) {
        const std::size_t stride = in.stride();
        const std::size_t width = in.latent.width();
        const auto d_mu = [&](std::size_t b, std::size_t j) { return in.d_mu(b, j, epsilon); };
        const auto d_logvar = [&](std::size_t b, std::size_t j) {
            return in.d_logvar(b, j, epsilon);
        };
        const Shape both{in.shape.examples, 2 * in.shape.stride};
        const auto element = [&](std::size_t b, std::size_t c) {
            const std::size_t j = c < stride ? c : c - stride;
            if (j >= width) return Bound{0, 0};
            return c < stride ? d_mu(b, j) : d_logvar(b, j);
        };
        expect_close(out.d_product, stored(each(both, element), storage), "d_product");
        expect_close(out.d_mu_bias, column_sums(in.latent, d_mu), "d_mu_bias");
        expect_close(out.d_logvar_bias, column_sums(in.latent, d_logvar), "d_logvar_bias");
    }

    void check(const HeadsShape& shape, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message()
                     << shape.examples << " examples of " << shape.samples
                     << (shape.is_weighted ? " weighted" : "") << " draws, " << shape.latent
                     << " latents in " << shape.stride << ", seed " << kSeed);
        const Heads in(shape);
        const ForwardOutputs out = forward(in, shift);
        check_forward(in, out);
        for (const Storage storage : kStorages) {
            check_backward(in, backward(in, shift, storage), out.epsilon, storage);
        }
    }
};

TEST_F(Reparameterize, EveryRaggedSize) {
    for (const HeadsShape& shape : all_shapes()) check(shape);
}

TEST_F(Reparameterize, LaunchPaths) {
    for (const Shape& shape : launch_paths()) {
        if (shape.rows > 1) check({shape.rows, shape.cols, shape.cols});
    }
}

TEST_F(Reparameterize, UnalignedArrays) {
    check({33, 32, 32}, 1);
    check({33, 32, 32, 2, true}, 1);
    check({33, 32, 32, 2, true, true}, 1);
    check({33, 32, 32, 17, true, true}, 1);
}

TEST_F(Reparameterize, RepeatsBitForBit) {
    for (const HeadsShape& shape : {HeadsShape{129, 20, 64}, HeadsShape{70, 21, 21, 3, true},
                                    HeadsShape{70, 21, 21, 40, true}}) {
        const Heads in(shape);
        const BackwardOutputs out = backward(in);
        const BackwardOutputs again = backward(in);
        expect_same_bits(again.d_product, out.d_product, "d_product");
        expect_same_bits(again.d_mu_bias, out.d_mu_bias, "d_mu_bias");
        expect_same_bits(again.d_logvar_bias, out.d_logvar_bias, "d_logvar_bias");
    }
}

// Next to the prior log q − log p is a small number: that of the formula must keep its digits.
TEST_F(Reparameterize, RatioKeepsItsDigitsNextToThePrior) {
    Heads in({5, 8, 8, 4});
    for (float& value : in.product) value = 0x1p-12f;
    std::fill(in.mu_bias.begin(), in.mu_bias.end(), 0.0f);
    std::fill(in.logvar_bias.begin(), in.logvar_bias.end(), 0.0f);
    const ForwardOutputs out = forward(in);
    for (std::size_t r = 0; r < in.draws.height(); ++r) {
        double want = 0;
        for (std::size_t j = 0; j < 8; ++j) {
            const double e = out.epsilon[r * 8 + j];
            const double z = in.mu(r / 4, j) + in.sigma(r / 4, j) * e;
            want += (z * z - e * e - in.logvar(r / 4, j)) / 2;
        }
        // 8 terms of size 2^-13·(1 + |e|)², of which each has 14 roundings (log_ratio_bounds); z² −
        // e² in float would be wrong by 2^-24·e².
        EXPECT_NEAR(out.log_ratio[r], want, 0x1p-28) << r;
    }
}

TEST_F(Reparameterize, NanComesThrough) {
    for (const bool in_logvar : {false, true}) {
        SCOPED_TRACE(in_logvar);
        Heads in({3, 20, 32, 2});
        in.product[64 + (in_logvar ? 32 : 0) + 7] = kNan;
        const ForwardOutputs out = forward(in);
        EXPECT_TRUE(std::isnan(out.z[47]));
        EXPECT_TRUE(std::isnan(out.z[67]));
        for (std::size_t b = 0; b < 3; ++b) EXPECT_EQ(std::isnan(out.kl[b]), b == 1) << b;
        for (std::size_t r = 0; r < 6; ++r) {
            EXPECT_EQ(std::isnan(out.log_ratio[r]), r / 2 == 1) << r;
        }
        EXPECT_TRUE(std::isnan(in_logvar ? out.logvar[27] : out.mu[27]));
        for (const Storage storage : kStorages) {
            const BackwardOutputs back = backward(in, 0, storage);
            EXPECT_TRUE(std::isnan(back.d_product[64 + (in_logvar ? 32 : 0) + 7]));
            for (std::size_t j = 0; j < 20; ++j) {
                EXPECT_EQ(std::isnan(back.d_mu_bias[j]), !in_logvar && j == 7) << j;
                EXPECT_EQ(std::isnan(back.d_logvar_bias[j]), in_logvar && j == 7) << j;
            }
        }
    }
}

TEST_F(Reparameterize, BadRequestsThrow) {
    auto array = output(64);
    auto index = upload(std::vector<std::uint32_t>(4, 0));
    const auto request = [&](int examples, int latent, int stride, float low, int samples = 1) {
        const HeadsView heads{array.data(), array.data(), array.data(), examples, samples,
                              latent,       stride,       low,          kHigh};
        kernels::reparameterize_backward(heads, source_of(index.data()), {.d_z = array.data()},
                                         array.data(), array.data(), array.data(), {},
                                         stream().get());
    };
    EXPECT_THROW(request(-1, 4, 4, kLow), std::invalid_argument);
    EXPECT_THROW(request(4, -1, 4, kLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 3, kLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 3.0f), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, kLow, 0), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, kLow), std::invalid_argument) << "no scratch";
}

}  // namespace
}  // namespace vae::test
