#include "kernels/cholesky_posterior.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <stdexcept>
#include <vector>

#include "host/noise.h"
#include "tests/cholesky_reference.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

struct ForwardOutputs {
    std::vector<float> mu, logvar, tril, kl, epsilon, z, log_ratio, log_q;
};

struct BackwardOutputs {
    std::vector<float> d_product, d_mu_bias, d_logvar_bias, d_tril_bias;
};

class CholeskyPosterior : public KernelTest {
  protected:
    ForwardOutputs forward(const CholeskyInputs& in, std::size_t shift = 0) {
        auto product = upload(in.product, shift);
        auto mu_bias = upload(in.mu_bias, shift);
        auto logvar_bias = upload(in.logvar_bias, shift);
        auto tril_bias = upload(in.tril_bias, shift);
        auto index = upload(in.index);
        auto mu = output(in.latent.size(), shift);
        auto logvar = output(in.latent.size(), shift);
        auto tril = output(in.tril.size(), shift);
        auto kl = output(in.latent.height());
        auto epsilon = output(in.draws.size(), shift);
        auto z = output(in.draws.size(), shift);
        auto log_ratio = output(in.draws.height());
        auto log_q = output(in.draws.height());
        const auto heads =
            view(in, product.data(), mu_bias.data(), logvar_bias.data(), tril_bias.data());
        kernels::cholesky_forward(heads, source_of(index.data()),
                                  {mu.data(), logvar.data(), tril.data(), kl.data(), epsilon.data(),
                                   z.data(), log_ratio.data(), log_q.data()},
                                  stream().get());
        auto only_z = output(in.draws.size());
        auto its_epsilon = output(in.draws.size());
        DeviceArray<Bf16> rounded_z(stream(), in.draws.size(), shift);
        kernels::cholesky_forward(
            heads, source_of(index.data()),
            {.epsilon = its_epsilon.data(), .z = only_z.data(), .rounded_z = rounded_z.data()},
            stream().get());
        if (in.draws.size() > 0) {
            expect_same_bits(only_z.download(), z.download(), "z alone");
            expect_rounded(rounded_z.download(), z.download(), "rounded_z");
        }
        return {mu.download(),      logvar.download(), tril.download(),      kl.download(),
                epsilon.download(), z.download(),      log_ratio.download(), log_q.download()};
    }

    // d_product as it is stored.
    BackwardOutputs backward(const CholeskyInputs& in, const ForwardOutputs& of,
                             std::size_t shift = 0, Storage storage = Storage::fp32) {
        auto product = upload(in.product, shift);
        auto mu_bias = upload(in.mu_bias, shift);
        auto logvar_bias = upload(in.logvar_bias, shift);
        auto tril_bias = upload(in.tril_bias, shift);
        auto epsilon = upload(of.epsilon, shift);
        auto z = upload(of.z, shift);
        auto d_z = upload(in.d_z, shift);
        auto path = upload(in.path);
        auto ratio = upload(in.ratio);
        auto score = upload(in.score);
        auto prior_score = upload(in.prior_score, shift);
        auto kl_mask = upload(in.kl_mask);
        StoredArray d_product(stream(), storage, in.product.size(), shift);
        auto d_mu_bias = output(in.latent.width());
        auto d_logvar_bias = output(in.latent.width());
        auto d_tril_bias = output(in.tril.width());
        auto draws = output(in.draws.size());
        DeviceScratch scratch(stream(), in.shape.examples, in.shape.pitch());
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
        kernels::cholesky_backward(
            view(in, product.data(), mu_bias.data(), logvar_bias.data(), tril_bias.data()),
            {epsilon.data(), z.data()}, gradient,
            {d_product.get(), d_mu_bias.data(), d_logvar_bias.data(), d_tril_bias.data(),
             draws.data()},
            scratch.get(), stream().get());
        return {d_product.download(), d_mu_bias.download(), d_logvar_bias.download(),
                d_tril_bias.download()};
    }

    static kernels::CholeskyHeads view(const CholeskyInputs& in, const float* product,
                                       const float* mu_bias, const float* logvar_bias,
                                       const float* tril_bias) {
        return {{.product = product,
                 .mu_bias = mu_bias,
                 .logvar_bias = logvar_bias,
                 .examples = in.shape.examples,
                 .samples = in.shape.samples,
                 .latent = in.shape.latent,
                 .stride = in.shape.stride(),
                 .logvar_min = CholeskyInputs::kCholeskyLow,
                 .logvar_max = CholeskyInputs::kCholeskyHigh},
                tril_bias,
                in.shape.tril_stride()};
    }

    void check_posterior(const CholeskyInputs& in, const ForwardOutputs& out) {
        const auto exactly = [](double value) { return Bound{value, 0}; };
        expect_close(out.mu, each(in.latent, [&](auto b, auto i) { return exactly(in.mu(b, i)); }),
                     "mu");
        expect_close(out.logvar,
                     each(in.latent, [&](auto b, auto i) { return exactly(in.logvar(b, i)); }),
                     "logvar");
        expect_close(out.tril,
                     each(in.tril, [&](auto b, auto k) { return exactly(in.below(b, k)); }),
                     "tril");
        const auto width = static_cast<double>(in.shape.latent);
        std::vector<Bound> kl;
        for (std::size_t b = 0; b < in.latent.height(); ++b) {
            Sum sum;
            for (std::size_t i = 0; i < in.latent.width(); ++i) {
                sum.add(in.mu(b, i) * in.mu(b, i) / 2);
                sum.add(std::expm1(in.logvar(b, i)) / 2);
                sum.add(-in.logvar(b, i) / 2);
            }
            for (std::size_t k = 0; k < in.tril.width(); ++k) {
                sum.add(in.below(b, k) * in.below(b, k) / 2);
            }
            // A lane adds one term for each 32 or part of 32 entries of a row, one row after the
            // other.
            kl.push_back(sum.within(22 + width * (width / 64 + 1)));
        }
        expect_close(out.kl, kl, "kl");
    }

    void check_draws(const CholeskyInputs& in, const ForwardOutputs& out) {
        const std::size_t width = in.latent.width();
        std::vector<double> noise(in.draws.size());
        for (std::size_t r = 0; r < in.draws.height(); ++r) {
            fill_normal({noise_stream().seed, Purpose::epsilon, noise_stream().step,
                         kFirstIndex + in.index[r / in.samples()],
                         noise_stream().sample + static_cast<std::uint32_t>(r % in.samples())},
                        std::span(noise).subspan(r * width, width));
        }
        std::vector<Bound> epsilon, z, log_ratio, log_q;
        // As in reparameterize_test.
        for (const double value : noise) epsilon.push_back({value, 1e-5});
        expect_close(out.epsilon, epsilon, "epsilon");
        // A lane's terms of a row, and its tree.
        const double roundings = 12 + static_cast<double>(width) / 32;
        for (std::size_t r = 0; r < in.draws.height(); ++r) {
            const std::size_t b = r / in.samples();
            Sum ratio, minus_q;
            for (std::size_t i = 0; i < width; ++i) {
                Sum point, shift;
                point.add(in.mu(b, i));
                shift.add(in.mu(b, i));
                for (std::size_t j = 0; j <= i; ++j) {
                    point.add(in.l(b, i, j) * out.epsilon[r * width + j]);
                    shift.add(in.l_minus_one(b, i, j) * out.epsilon[r * width + j]);
                }
                z.push_back(point.within(roundings));
                const double e = out.epsilon[r * width + i];
                ratio.add((shift.value * (point.value + e) - in.logvar(b, i)) / 2,
                          (shift.magnitude * (point.magnitude + std::abs(e)) +
                           std::abs(in.logvar(b, i))) /
                              2);
                minus_q.add(e * e / 2);
                minus_q.add(in.logvar(b, i) / 2);
                minus_q.add(std::log(2 * std::numbers::pi) / 2);
            }
            log_ratio.push_back(ratio.within(2 * roundings + 20));
            log_q.push_back({-minus_q.value, 20 * kEpsilon * minus_q.magnitude});
        }
        expect_close(out.z, z, "z");
        expect_close(out.log_ratio, log_ratio, "log_ratio");
        expect_close(out.log_q, log_q, "log_q");
    }

    // Σ over b's draws of g_i·factor(draw) + kl, with the error of each g; `extra` roundings.
    static Bound total(const CholeskyInputs& in, const std::vector<Approximate>& g, std::size_t b,
                       std::size_t i, double kl, const auto& factor) {
        Sum sum;
        double passed = 0;
        sum.add(in.kl_scale(i) * kl);
        for (std::size_t r = b * in.samples(); r < (b + 1) * in.samples(); ++r) {
            const Approximate& own = g[r * in.latent.width() + i];
            sum.add(own.value * factor(r));
            passed += own.error * std::abs(factor(r));
        }
        Bound bound = sum.within(8 + static_cast<double>(in.samples()));
        bound.tolerance += passed;
        return bound;
    }

    void check_backward(const CholeskyInputs& in, const ForwardOutputs& of,
                        const BackwardOutputs& out, Storage storage) {
        const std::size_t width = in.latent.width();
        const auto g = in.gradient_of_draws(of.epsilon, of.z);
        const auto e = [&](std::size_t r, std::size_t j) {
            return static_cast<double>(of.epsilon[r * width + j]);
        };
        const auto d_mu = [&](std::size_t b, std::size_t i) {
            return total(in, g, b, i, in.mu(b, i), [](std::size_t) { return 1.0; });
        };
        const auto d_tril = [&](std::size_t b, std::size_t k) {
            std::size_t i = 1;
            while (CholeskyInputs::start(i + 1) <= k) ++i;
            const std::size_t j = k - CholeskyInputs::start(i);
            return total(in, g, b, i, in.below(b, k), [&](std::size_t r) { return e(r, j); });
        };
        const auto d_logvar = [&](std::size_t b, std::size_t i) {
            if (in.is_outside(b, i)) return Bound{0, 0};
            Bound twice = total(in, g, b, i, std::expm1(in.logvar(b, i)),
                                [&](std::size_t r) { return in.l(b, i, i) * e(r, i); });
            for (std::size_t r = b * in.samples(); r < (b + 1) * in.samples(); ++r) {
                if (!in.shape.is_weighted) continue;
                twice.value -= static_cast<double>(kScale) * in.score[r];
                twice.tolerance += (8 + static_cast<double>(in.samples())) * kEpsilon *
                                   std::abs(kScale * in.score[r]);
            }
            return Bound{twice.value / 2, twice.tolerance / 2};
        };
        const std::size_t stride = in.stride();
        const auto element = [&](std::size_t b, std::size_t c) {
            if (c < stride) return c < width ? d_mu(b, c) : Bound{0, 0};
            if (c < 2 * stride) return c - stride < width ? d_logvar(b, c - stride) : Bound{0, 0};
            return c - 2 * stride < in.tril.width() ? d_tril(b, c - 2 * stride) : Bound{0, 0};
        };
        const Shape all{in.shape.examples, in.shape.pitch()};
        expect_close(out.d_product, stored(each(all, element), storage), "d_product");
        expect_close(out.d_mu_bias, column_sums(in.latent, d_mu), "d_mu_bias");
        expect_close(out.d_logvar_bias, column_sums(in.latent, d_logvar), "d_logvar_bias");
        expect_close(out.d_tril_bias, column_sums(in.tril, d_tril), "d_tril_bias");
    }

    void check(const CholeskyShape& shape, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message()
                     << shape.examples << " examples of " << shape.samples
                     << (shape.is_weighted ? " weighted" : "") << " draws, " << shape.latent
                     << " latents in " << shape.stride() << ", seed " << kSeed);
        const CholeskyInputs in(shape);
        const ForwardOutputs out = forward(in, shift);
        check_posterior(in, out);
        check_draws(in, out);
        for (const Storage storage : kStorages) {
            check_backward(in, out, backward(in, out, shift, storage), storage);
        }
    }
};

TEST_F(CholeskyPosterior, EveryRaggedSize) {
    for (const int latent : {0, 1, 2, 3, 31, 32, 33, 64, 101}) {
        for (const int examples : {0, 1, 5, 33}) {
            for (const bool is_padded : {true, false}) {
                check({examples, latent, is_padded});
                check({examples, latent, is_padded, 3, true});
            }
        }
    }
}

TEST_F(CholeskyPosterior, ManyExamplesDrawsAndPriors) {
    check({129, 20, true, 1, true, true});
    check({700, 7, true, 2, true});
    check({5, 33, true, 50, true, true});
    check({3, 130, true, 2, true});
}

// Of many short rows: two and eight rows a warp, with four columns a thread and with one.
TEST_F(CholeskyPosterior, LaunchPaths) {
    check({16371, 1, false});
    check({16371, 1, true});
    check({65479, 1, false});
    check({65479, 1, true});
}

TEST_F(CholeskyPosterior, UnalignedArrays) {
    check({33, 32, true, 1, false}, 1);
    check({33, 32, true, 2, true}, 1);
}

TEST_F(CholeskyPosterior, TheLargestLatent) {
    const CholeskyInputs in({2, kernels::kMostCholeskyLatent, true, 1, true, false, 0.05f});
    const ForwardOutputs out = forward(in);
    check_posterior(in, out);
    check_draws(in, out);
    const BackwardOutputs back = backward(in, out);
    const auto g = in.gradient_of_draws(out.epsilon, out.z);
    const std::size_t width = in.latent.width();
    for (std::size_t b = 0; b < 2; ++b) {
        for (std::size_t k = 0; k < in.tril.width(); k += 997) {
            std::size_t i = 1;
            while (CholeskyInputs::start(i + 1) <= k) ++i;
            const std::size_t j = k - CholeskyInputs::start(i);
            const Bound want = total(in, g, b, i, in.below(b, k), [&](std::size_t r) {
                return static_cast<double>(out.epsilon[r * width + j]);
            });
            EXPECT_NEAR(back.d_product[b * in.pitch + 2 * in.stride() + k], want.value,
                        want.tolerance)
                << i << ", " << j;
        }
    }
}

TEST_F(CholeskyPosterior, RepeatsBitForBit) {
    const CholeskyInputs in({129, 20, true, 3, true});
    const ForwardOutputs of = forward(in);
    const BackwardOutputs out = backward(in, of);
    const BackwardOutputs again = backward(in, of);
    expect_same_bits(again.d_product, out.d_product, "d_product");
    expect_same_bits(again.d_mu_bias, out.d_mu_bias, "d_mu_bias");
    expect_same_bits(again.d_logvar_bias, out.d_logvar_bias, "d_logvar_bias");
    expect_same_bits(again.d_tril_bias, out.d_tril_bias, "d_tril_bias");
}

// With nothing below the diagonal: z bit for bit, sums whose order is another to their rounding.
TEST_F(CholeskyPosterior, AZeroTrilIsTheDiagonalPosterior) {
    const CholeskyInputs in({33, 33, true, 3, false, false, 0.0f});
    const ForwardOutputs out = forward(in);
    std::vector<float> of_both;  // the product without tril's columns
    for (std::size_t b = 0; b < 33; ++b) {
        const auto first = in.product.begin() + static_cast<std::ptrdiff_t>(b * in.pitch);
        of_both.insert(of_both.end(), first, first + 2 * in.shape.stride());
    }
    auto product = upload(of_both);
    auto mu_bias = upload(in.mu_bias);
    auto logvar_bias = upload(in.logvar_bias);
    auto index = upload(in.index);
    auto z = output(in.draws.size());
    auto kl = output(33);
    auto log_ratio = output(in.draws.height());
    const auto heads = view(in, product.data(), mu_bias.data(), logvar_bias.data(), nullptr).heads;
    kernels::reparameterize_forward(heads, source_of(index.data()),
                                    {.kl = kl.data(), .z = z.data(), .log_ratio = log_ratio.data()},
                                    stream().get());
    expect_same_bits(out.z, z.download(), "z");
    const auto diagonal_kl = kl.download();
    const auto diagonal_ratio = log_ratio.download();
    for (std::size_t b = 0; b < 33; ++b) EXPECT_NEAR(out.kl[b], diagonal_kl[b], 1e-4) << b;
    for (std::size_t r = 0; r < in.draws.height(); ++r) {
        EXPECT_NEAR(out.log_ratio[r], diagonal_ratio[r], 1e-4) << r;
    }
}

TEST_F(CholeskyPosterior, NanComesThrough) {
    CholeskyInputs in({3, 20, true, 2, true});
    in.product[in.pitch + 2 * in.stride() + CholeskyInputs::start(7) + 3] = kNan;  // L(7, 3)
    const ForwardOutputs out = forward(in);
    for (std::size_t r = 0; r < 6; ++r) {
        EXPECT_EQ(std::isnan(out.log_ratio[r]), r / 2 == 1) << r;
        for (std::size_t i = 0; i < 20; ++i) {
            EXPECT_EQ(std::isnan(out.z[r * 20 + i]), r / 2 == 1 && i == 7);
        }
    }
    for (std::size_t b = 0; b < 3; ++b) EXPECT_EQ(std::isnan(out.kl[b]), b == 1) << b;
    const BackwardOutputs back = backward(in, out);
    EXPECT_TRUE(std::isnan(back.d_tril_bias[CholeskyInputs::start(7) + 3]));
    EXPECT_FALSE(std::isnan(back.d_product[0]));
}

TEST_F(CholeskyPosterior, BadRequestsThrow) {
    auto array = output(64);
    const auto request = [&](int examples, int latent, int stride, int tril_stride,
                             int samples = 1) {
        const kernels::CholeskyHeads heads{{.product = array.data(),
                                            .mu_bias = array.data(),
                                            .logvar_bias = array.data(),
                                            .examples = examples,
                                            .samples = samples,
                                            .latent = latent,
                                            .stride = stride,
                                            .logvar_min = -1,
                                            .logvar_max = 1},
                                           array.data(),
                                           tril_stride};
        kernels::cholesky_backward(
            heads, {array.data(), array.data()}, {.d_z = array.data()},
            {array.data(), array.data(), array.data(), array.data(), array.data()}, {},
            stream().get());
    };
    EXPECT_THROW(request(-1, 4, 4, 6), std::invalid_argument);
    EXPECT_THROW(request(4, -1, 4, 6), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 3, 6), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 5), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 6, 0), std::invalid_argument);
    EXPECT_THROW(request(4, 1025, 1025, 1 << 20), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 6), std::invalid_argument) << "no scratch";
}

}  // namespace
}  // namespace vae::test
