#include "kernels/mixture_prior.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/mixture_prior_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

struct Outputs {
    std::vector<float> mean, inverse_sigma, excess, offset;
    std::vector<double> log_weight;
    std::vector<float> relative, log_ratio, score, gamma;
    std::vector<float> d_mean, d_logvar, d_mean_bias, d_logvar_bias, d_logits;
};

// Scratch of exactly the size that is asked for.
class MixtureScratch {
  public:
    MixtureScratch(const TestStream& stream, const MixtureShape& s)
        : size_(kernels::mixture_scratch_size(s.rows, s.components, s.latent)),
          partials_(stream, size_.partials),
          tickets_(stream, std::vector<unsigned>(size_.tickets, 0)) {}
    kernels::Scratch get() {
        return {partials_.data(), partials_.size(), tickets_.data(), tickets_.size()};
    }
    bool is_clean() {
        const auto tickets = tickets_.download();
        return std::all_of(tickets.begin(), tickets.end(), [](unsigned t) { return t == 0; });
    }

  private:
    kernels::ScratchSize size_;
    DeviceArray<float> partials_;
    DeviceArray<unsigned> tickets_;
};

class MixturePrior : public KernelTest {
  protected:
    // d_mean and d_logvar as they are stored.
    Outputs run(const Mixture& in, Storage storage = Storage::fp32) {
        auto mean = upload(in.mean);
        auto logvar = upload(in.logvar);
        auto mean_bias = upload(in.mean_bias);
        auto logvar_bias = upload(in.logvar_bias);
        auto logits = upload(in.logits);
        auto z = upload(in.z);
        auto weight = upload(in.weight);
        auto log_ratio = upload(in.log_ratio);
        auto own_mean = output(in.components * in.latent);
        auto own_inverse_sigma = output(in.components * in.latent);
        auto own_excess = output(in.components * in.latent);
        auto own_offset = output(in.components);
        DeviceArray<double> own_log_weight(stream(), in.components);
        auto relative = output(in.rows);
        auto score = output(in.rows * in.latent);
        auto gamma = output(in.rows * in.components);
        StoredArray d_mean(stream(), storage, in.components * in.stride);
        StoredArray d_logvar(stream(), storage, in.components * in.stride);
        auto d_mean_bias = upload(in.mean_bias);  // to be added to
        auto d_logvar_bias = upload(in.logvar_bias);
        auto d_logits = output(in.components);
        const bool is_heads = in.is_heads;
        const kernels::MixtureSource source{.mean = mean.data(),
                                            .logvar = logvar.data(),
                                            .row_stride = static_cast<int>(in.stride),
                                            .mean_bias = is_heads ? mean_bias.data() : nullptr,
                                            .logvar_bias = is_heads ? logvar_bias.data() : nullptr,
                                            .logits = is_heads ? nullptr : logits.data(),
                                            .components = in.shape.components,
                                            .latent = in.shape.latent,
                                            .logvar_min = kMixtureLow,
                                            .logvar_max = kMixtureHigh};
        const kernels::MixtureComponents own{own_mean.data(), own_inverse_sigma.data(),
                                             own_excess.data(), own_offset.data(),
                                             own_log_weight.data()};
        kernels::mixture_components(source, own, stream().get());
        kernels::mixture_forward(source, own, z.data(), in.shape.rows,
                                 {relative.data(), log_ratio.data(), score.data(), gamma.data()},
                                 stream().get());
        MixtureScratch scratch(stream(), in.shape);
        kernels::mixture_backward(
            source, own, {z.data(), gamma.data(), weight.data(), in.shape.rows, kMixtureScale},
            {d_mean.get(), d_logvar.get(), is_heads ? d_mean_bias.data() : nullptr,
             is_heads ? d_logvar_bias.data() : nullptr, is_heads ? nullptr : d_logits.data()},
            scratch.get(), stream().get());
        EXPECT_TRUE(scratch.is_clean()) << "a ticket is left";
        return {own_mean.download(),       own_inverse_sigma.download(),
                own_excess.download(),     own_offset.download(),
                own_log_weight.download(), relative.download(),
                log_ratio.download(),      score.download(),
                gamma.download(),          d_mean.download(),
                d_logvar.download(),       d_mean_bias.download(),
                d_logvar_bias.download(),  d_logits.download()};
    }

    static void check_components(const Mixture& in, const Outputs& out) {
        const Shape both{in.shape.components, in.shape.latent};
        const Shape one{1, in.shape.components};
        expect_close(out.mean,
                     each(both,
                          [&](auto k, auto j) {
                              return Bound{in.m(k, j), 0};
                          }),
                     "mean");
        // Besides the rounding of the nearest float, exp is good to 2 units and expm1 to 1, and a
        // unit is 2 roundings.
        expect_close(out.inverse_sigma,
                     each(both,
                          [&](auto k, auto j) {
                              const double s = std::exp(-in.v(k, j) / 2);
                              return Bound{s, 5 * kEpsilon * s};
                          }),
                     "inverse_sigma");
        expect_close(out.excess,
                     each(both,
                          [&](auto k, auto j) {
                              const double excess = -std::expm1(-in.v(k, j) / 2);
                              return Bound{excess, 3 * kEpsilon * std::abs(excess)};
                          }),
                     "excess");
        expect_close(out.offset,
                     each(one,
                          [&](auto, auto k) {
                              return Bound{in.offset(k), 2 * kEpsilon * std::abs(in.offset(k))};
                          }),
                     "offset");
        ASSERT_EQ(out.log_weight.size(), in.components);
        for (std::size_t k = 0; k < in.components; ++k) {
            EXPECT_NEAR(out.log_weight[k], in.log_weight(k), 1e-13) << k;
        }
    }

    static void check_forward(const Mixture& in, const Outputs& out) {
        std::vector<Bound> relative, log_ratio, score, gamma;
        for (std::size_t r = 0; r < in.rows; ++r) {
            const Posterior posterior(in, r);
            relative.push_back(posterior.relative);
            const double ratio = in.log_ratio[r] - posterior.relative.value;
            log_ratio.push_back(
                {ratio, posterior.relative.tolerance + 2 * kEpsilon * std::abs(ratio)});
            gamma.insert(gamma.end(), posterior.gamma.begin(), posterior.gamma.end());
            for (std::size_t j = 0; j < in.latent; ++j) {
                Sum sum;
                double inexact = 0;
                for (std::size_t k = 0; k < in.components; ++k) {
                    const double pull = -in.precision(k, j) * in.distance(r, k, j);
                    sum.add(posterior.gamma[k].value * pull);
                    inexact += posterior.gamma[k].tolerance * std::abs(pull);
                }
                const Bound bound = sum.within(kMixtureRoundings);
                score.push_back({bound.value, bound.tolerance + inexact});
            }
        }
        expect_close(out.relative, relative, "relative");
        expect_close(out.log_ratio, log_ratio, "log_ratio");
        expect_close(out.gamma, gamma, "gamma");
        expect_close(out.score, score, "score");
    }

    // From the gammas that the kernel took. Rounding: as kMixtureRoundings, with a's two products
    // and the partial's own more.
    static void check_backward(const Mixture& in, const Outputs& out, Storage storage) {
        std::vector<Bound> d_mean(in.components * in.latent), d_logvar(d_mean), d_logits;
        for (std::size_t k = 0; k < in.components; ++k) {
            Sum logit;
            for (std::size_t r = 0; r < in.rows; ++r) {
                const double w = static_cast<double>(kMixtureScale) * in.weight[r];
                logit.add(-w * out.gamma[r * in.components + k]);
                logit.add(w * std::exp(in.log_weight(k)));
            }
            d_logits.push_back(logit.within(26));
            for (std::size_t j = 0; j < in.latent; ++j) {
                Sum mean, logvar;
                for (std::size_t r = 0; r < in.rows; ++r) {
                    const double a = static_cast<double>(kMixtureScale) * in.weight[r] *
                                     out.gamma[r * in.components + k];
                    const double d = in.distance(r, k, j);
                    mean.add(-a * in.precision(k, j) * d);
                    logvar.add(-a * in.precision(k, j) * d * d / 2);
                    logvar.add(a / 2);
                }
                const bool is_outside =
                    in.unclamped(k, j) < kMixtureLow || in.unclamped(k, j) > kMixtureHigh;
                d_mean[k * in.latent + j] = mean.within(kMixtureRoundings + 4);
                if (!is_outside) d_logvar[k * in.latent + j] = logvar.within(kMixtureRoundings + 4);
            }
        }
        const auto strided = [&](const std::vector<float>& values) {
            std::vector<float> all;
            for (std::size_t k = 0; k < in.components; ++k) {
                for (std::size_t j = 0; j < in.latent; ++j) {
                    all.push_back(values[k * in.stride + j]);
                }
                for (std::size_t j = in.latent; j < in.stride; ++j) {
                    EXPECT_TRUE(std::isnan(values[k * in.stride + j])) << "written between rows";
                }
            }
            return all;
        };
        expect_close(strided(out.d_mean), stored(d_mean, storage), "d_mean");
        expect_close(strided(out.d_logvar), stored(d_logvar, storage), "d_logvar");
        if (!in.is_heads) {
            expect_close(out.d_logits, d_logits, "d_logits");
            return;
        }
        const Shape both{in.shape.components, in.shape.latent};
        const auto biases = [&](const std::vector<Bound>& of, const std::vector<float>& before) {
            auto sums = column_sums(both, [&](auto k, auto j) { return of[k * in.latent + j]; });
            for (std::size_t j = 0; j < in.latent; ++j) {
                sums[j].value += before[j];
                sums[j].tolerance += kEpsilon * (std::abs(sums[j].value) + std::abs(before[j]));
            }
            return sums;
        };
        expect_close(out.d_mean_bias, biases(d_mean, in.mean_bias), "d_mean_bias");
        expect_close(out.d_logvar_bias, biases(d_logvar, in.logvar_bias), "d_logvar_bias");
    }

    void check(const MixtureShape& shape) {
        SCOPED_TRACE(testing::Message() << shape);
        const Mixture in(shape);
        const Outputs out = run(in);
        check_components(in, out);
        check_forward(in, out);
        check_backward(in, out, Storage::fp32);
        check_backward(in, run(in, Storage::bf16), Storage::bf16);
    }
};

TEST_F(MixturePrior, EveryRaggedSize) {
    for (const int rows : {0, 1, 31, 32, 33, 101}) {
        for (const int components : {1, 31, 32, 33}) {
            for (const int latent : {1, 20, 31, 32, 33}) {
                check({rows, components, latent, 0});
                check({rows, components, latent, 40});
            }
        }
    }
}

// Several parts of the rows, the last of them short; several tiles of components and of latents.
TEST_F(MixturePrior, LargeSizes) {
    check({600, 3, 5, 0});
    check({129, 101, 67, 72});
    check({257, 300, 4, 0});
    check({7, 1031, 2, 0});
    check({2, 5, 300, 304});
}

// Two rows a warp, of rows and of components.
TEST_F(MixturePrior, LaunchPaths) {
    check({16371, 1, 1, 0});
    check({1, 16371, 1, 0});
}

TEST_F(MixturePrior, NoLatents) {
    const Mixture in({5, 3, 0, 0});
    const Outputs out = run(in);
    for (const float relative : out.relative) EXPECT_NEAR(relative, 0, 4 * kEpsilon);
}

TEST_F(MixturePrior, RepeatsBitForBit) {
    const Mixture in({600, 33, 20, 24});
    const Outputs out = run(in);
    const Outputs again = run(in);
    expect_same_bits(again.relative, out.relative, "relative");
    expect_same_bits(again.score, out.score, "score");
    expect_same_bits(again.d_mean_bias, out.d_mean_bias, "d_mean_bias");
    expect_same_bits(again.d_logvar_bias, out.d_logvar_bias, "d_logvar_bias");
}

// All components N(0, I): the mixture is N(0, I), whatever the weights.
TEST_F(MixturePrior, EqualComponentsAreOneGaussian) {
    Mixture in({70, 9, 12, 0, false});
    std::fill(in.mean.begin(), in.mean.end(), 0.0f);
    std::fill(in.logvar.begin(), in.logvar.end(), 0.0f);
    const Outputs out = run(in);
    for (std::size_t r = 0; r < in.rows; ++r) {
        for (std::size_t j = 0; j < in.latent; ++j) {
            const double value = in.z[r * in.latent + j];
            EXPECT_NEAR(out.score[r * in.latent + j], -value, 16 * kEpsilon * std::abs(value));
        }
        EXPECT_NEAR(out.relative[r], 0, 1e-15) << r;
        EXPECT_EQ(out.log_ratio[r], in.log_ratio[r]);
    }
}

// Next to N(0, I) the ratio is a small number, which must keep its digits.
TEST_F(MixturePrior, RatioKeepsItsDigitsNextToTheNormalPrior) {
    Mixture in({33, 40, 8, 0, false});
    for (float& value : in.mean) value *= 0x1p-12f;
    for (float& value : in.logvar) value *= 0x1p-12f;
    const Outputs out = run(in);
    for (std::size_t r = 0; r < in.rows; ++r) {
        // Terms are of size 2^-12·(1 + |z|)²; z² in float would be wrong by 2^-24·z².
        EXPECT_NEAR(out.relative[r], Posterior(in, r).relative.value, 0x1p-30) << r;
    }
}

// Codes whose densities underflow in every component: the logarithm does not.
TEST_F(MixturePrior, FarCodes) {
    Mixture in({6, 4, 3, 0, false});
    for (float& value : in.z) value = 40 * (value + 3);
    for (float& value : in.logvar) value = std::min(value, -0.5f);
    const Outputs out = run(in);
    check_forward(in, out);
    EXPECT_LT(out.relative[0], -1000);
}

TEST_F(MixturePrior, NanComesThrough) {
    Mixture in({4, 5, 6, 0});
    in.z[6 + 2] = kNan;  // of row 1
    const Outputs out = run(in);
    for (std::size_t r = 0; r < 4; ++r) {
        EXPECT_EQ(std::isnan(out.relative[r]), r == 1) << r;
        EXPECT_EQ(std::isnan(out.score[r * 6]), r == 1) << r;
    }
    EXPECT_TRUE(std::isnan(out.d_mean[0]));
    EXPECT_TRUE(std::isnan(out.d_logits[0]));
    Mixture other({4, 5, 6, 0, false});
    other.logvar[7] = kNan;  // of component 1
    const Outputs of_other = run(other);
    EXPECT_TRUE(std::isnan(of_other.relative[0]));
    EXPECT_TRUE(std::isnan(of_other.d_logvar[7]));
}

TEST_F(MixturePrior, BadRequestsThrow) {
    auto array = output(64);
    const auto request = [&](int rows, int components, int latent, int stride, float low) {
        const kernels::MixtureSource source{.mean = array.data(),
                                            .logvar = array.data(),
                                            .row_stride = stride,
                                            .components = components,
                                            .latent = latent,
                                            .logvar_min = low,
                                            .logvar_max = kMixtureHigh};
        const kernels::MixtureComponents own{array.data(), array.data(), array.data(), array.data(),
                                             nullptr};
        kernels::mixture_backward(source, own, {array.data(), array.data(), array.data(), rows, 1},
                                  {array.data(), array.data(), nullptr, nullptr, nullptr}, {},
                                  stream().get());
    };
    EXPECT_THROW(request(4, 0, 4, 4, kMixtureLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, -1, 4, kMixtureLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 3, kMixtureLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 4, 3.0f), std::invalid_argument);
    EXPECT_THROW(request(-1, 4, 4, 4, kMixtureLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 4, kMixtureLow), std::invalid_argument) << "no scratch";
}

}  // namespace
}  // namespace vae::test
