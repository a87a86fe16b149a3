#include "kernels/reparameterize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "host/noise.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::HeadsView;
using kernels::NoiseStream;

constexpr float kLow = -6.0f;
constexpr float kHigh = 2.0f;
constexpr float kKlScale = 0.41f;
constexpr std::uint32_t kFirstIndex = 4294967000u;  // some examples wrap around

// stride >= latent; multiples of 4 take the wide path.
struct HeadsShape {
    int rows = 0;
    int latent = 0;
    int stride = 0;
};

std::vector<HeadsShape> all_shapes() {
    constexpr std::array<std::pair<int, int>, 15> kWidths = {{{0, 0},
                                                              {0, 4},
                                                              {1, 1},
                                                              {1, 4},
                                                              {20, 20},
                                                              {20, 64},
                                                              {21, 21},
                                                              {31, 32},
                                                              {32, 32},
                                                              {33, 33},
                                                              {50, 64},
                                                              {101, 104},
                                                              {127, 127},
                                                              {128, 128},
                                                              {300, 301}}};
    std::vector<HeadsShape> shapes;
    for (const int rows : {0, 1, 31, 32, 33, 101, 127, 128, 129}) {
        for (const auto& [latent, stride] : kWidths) shapes.push_back({rows, latent, stride});
    }
    shapes.push_back({8200, 2, 4});
    return shapes;
}

NoiseStream noise_stream() {
    return {.seed = 0xfedcba9876543210u,
            .purpose = static_cast<std::uint32_t>(Purpose::epsilon),
            .step = 77,
            .sample = 5};
}

// Inputs and double references of one shape.
struct Heads {
    explicit Heads(const HeadsShape& s)
        : shape(s),
          latent{s.rows, s.latent},
          pitch(2 * static_cast<std::size_t>(s.stride)),
          product(random_normals(latent.height() * pitch, 1, 2.0f)),
          mu_bias(random_normals(latent.width(), 2)),
          logvar_bias(random_normals(latent.width(), 3)),
          d_z(random_normals(latent.size(), 4)),
          index(latent.height()) {
        // Without a bias the boundary is hit exactly.
        for (std::size_t j = 0; j < logvar_bias.size(); j += 2) logvar_bias[j] = 0;
        for (std::size_t r = 0; r < index.size(); ++r) {
            index[r] = static_cast<std::uint32_t>(r * 7 % 1000);
            // Far outside, and exactly on both boundaries, where the gradient still flows.
            for (std::size_t j = 0; j < latent.width(); ++j) {
                float& logvar = product[r * pitch + stride() + j];
                switch ((r + 3 * j) % 11) {
                    case 0:
                        logvar = 200;
                        break;
                    case 1:
                        logvar = -200;
                        break;
                    case 2:
                        logvar = kLow - logvar_bias[j];
                        break;
                    case 3:
                        logvar = kHigh - logvar_bias[j];
                        break;
                    default:
                        break;
                }
            }
        }
    }

    std::size_t stride() const { return static_cast<std::size_t>(shape.stride); }
    // The kernel's own float sums.
    double mu(std::size_t r, std::size_t j) const { return product[r * pitch + j] + mu_bias[j]; }
    double unclamped(std::size_t r, std::size_t j) const {
        return product[r * pitch + stride() + j] + logvar_bias[j];
    }
    double logvar(std::size_t r, std::size_t j) const {
        return std::clamp<double>(unclamped(r, j), kLow, kHigh);
    }
    Bound d_mu(std::size_t r, std::size_t j) const {
        Sum sum;
        sum.add(d_z[r * latent.width() + j]);
        sum.add(kKlScale * mu(r, j));
        return sum.within(2);
    }
    // exp and expm1 are good to 1 unit each (2 roundings); four products and a sum.
    Bound d_logvar(std::size_t r, std::size_t j, double epsilon) const {
        if (unclamped(r, j) < kLow || unclamped(r, j) > kHigh) return {0, 0};
        const double value = logvar(r, j);
        Sum sum;
        sum.add(d_z[r * latent.width() + j] * epsilon * std::exp(value / 2) / 2);
        sum.add(kKlScale * std::expm1(value) / 2);
        return sum.within(8);
    }

    HeadsShape shape;
    Shape latent;
    std::size_t pitch;
    std::vector<float> product;
    std::vector<float> mu_bias;
    std::vector<float> logvar_bias;
    std::vector<float> d_z;
    std::vector<std::uint32_t> index;
};

struct ForwardOutputs {
    std::vector<float> mu, logvar, epsilon, z, kl;
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
        auto epsilon = output(in.latent.size(), shift);
        auto z = output(in.latent.size(), shift);
        auto kl = output(in.latent.height());
        kernels::reparameterize_forward(
            view(in, product.data(), mu_bias.data(), logvar_bias.data()), noise_stream(),
            index.data(), kFirstIndex, mu.data(), logvar.data(), epsilon.data(), z.data(),
            kl.data(), stream().get());
        auto only_z = output(in.latent.size());
        auto only_kl = output(in.latent.height());
        kernels::reparameterize_forward(
            view(in, product.data(), mu_bias.data(), logvar_bias.data()), noise_stream(),
            index.data(), kFirstIndex, nullptr, nullptr, nullptr, only_z.data(), only_kl.data(),
            stream().get());
        if (in.latent.size() > 0) {
            expect_same_bits(only_z.download(), z.download(), "z alone");
            expect_same_bits(only_kl.download(), kl.download(), "kl alone");
        }
        return {mu.download(), logvar.download(), epsilon.download(), z.download(), kl.download()};
    }

    BackwardOutputs backward(const Heads& in, std::size_t shift = 0, bool in_place = false) {
        auto product = upload(in.product, shift);
        auto mu_bias = upload(in.mu_bias, shift);
        auto logvar_bias = upload(in.logvar_bias, shift);
        auto index = upload(in.index);
        auto d_z = upload(in.d_z, shift);
        auto separate = output(in.product.size(), shift);
        auto d_mu_bias = output(in.latent.width());
        auto d_logvar_bias = output(in.latent.width());
        auto& d_product = in_place ? product : separate;
        DeviceScratch scratch(stream(), in.shape.rows, 2 * in.shape.stride);
        kernels::reparameterize_backward(
            view(in, product.data(), mu_bias.data(), logvar_bias.data()), noise_stream(),
            index.data(), kFirstIndex, d_z.data(), kKlScale, d_product.data(), d_mu_bias.data(),
            d_logvar_bias.data(), scratch.get(), stream().get());
        return {d_product.download(), d_mu_bias.download(), d_logvar_bias.download()};
    }

    static HeadsView view(const Heads& in, const float* product, const float* mu_bias,
                          const float* logvar_bias) {
        return {product,         mu_bias,         logvar_bias, in.shape.rows,
                in.shape.latent, in.shape.stride, kLow,        kHigh};
    }

    void check_forward(const Heads& in, const ForwardOutputs& out) {
        const std::size_t width = in.latent.width();
        const auto each_latent = [&](const auto& element) { return each(in.latent, element); };
        std::vector<double> noise(in.latent.size());
        for (std::size_t r = 0; r < in.latent.height(); ++r) {
            fill_normal({noise_stream().seed, Purpose::epsilon, noise_stream().step,
                         kFirstIndex + in.index[r], noise_stream().sample},
                        std::span(noise).subspan(r * width, width));
        }
        // The radius, up to 6.8, times an error of sine and cosine of about 1e-6 on a GPU, where
        // cuRAND takes them from the fast unit.
        expect_close(out.epsilon, each_latent([&](auto r, auto j) {
                         return Bound{noise[r * width + j], 1e-5};
                     }),
                     "epsilon");
        expect_close(out.mu, each_latent([&](auto r, auto j) {
                         return Bound{in.mu(r, j), 0};
                     }),
                     "mu");
        expect_close(out.logvar, each_latent([&](auto r, auto j) {
                         return Bound{in.logvar(r, j), 0};
                     }),
                     "logvar");
        // exp is good to 1 unit (2 roundings); a product and a sum.
        expect_close(out.z, each_latent([&](auto r, auto j) {
                         Sum sum;
                         sum.add(in.mu(r, j));
                         sum.add(std::exp(in.logvar(r, j) / 2) * out.epsilon[r * width + j]);
                         return sum.within(5);
                     }),
                     "z");
        std::vector<Bound> kl;
        for (std::size_t r = 0; r < in.latent.height(); ++r) {
            Sum sum;
            for (std::size_t j = 0; j < width; ++j) {
                sum.add(in.mu(r, j) * in.mu(r, j) / 2);
                sum.add(std::expm1(in.logvar(r, j)) / 2);
                sum.add(-in.logvar(r, j) / 2);
            }
            // 5 roundings a term, at most 12 terms in a lane, 5 levels of the tree.
            kl.push_back(sum.within(22));
        }
        expect_close(out.kl, kl, "kl");
    }

    void check_backward(const Heads& in, const BackwardOutputs& out,
                        const std::vector<float>& epsilon) {
        const std::size_t stride = in.stride();
        const std::size_t width = in.latent.width();
        const auto d_mu = [&](std::size_t r, std::size_t j) { return in.d_mu(r, j); };
        const auto d_logvar = [&](std::size_t r, std::size_t j) {
            return in.d_logvar(r, j, epsilon[r * width + j]);
        };
        const Shape both{in.shape.rows, 2 * in.shape.stride};
        expect_close(out.d_product,
                     each(both,
                          [&](std::size_t r, std::size_t c) {
                              const std::size_t j = c < stride ? c : c - stride;
                              if (j >= width) return Bound{0, 0};
                              return c < stride ? d_mu(r, j) : d_logvar(r, j);
                          }),
                     "d_product");
        expect_close(out.d_mu_bias, column_sums(in.latent, d_mu), "d_mu_bias");
        expect_close(out.d_logvar_bias, column_sums(in.latent, d_logvar), "d_logvar_bias");
    }

    void check(const HeadsShape& shape, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << shape.rows << " rows, " << shape.latent << " latents in "
                                        << shape.stride << ", seed " << kSeed);
        const Heads in(shape);
        const ForwardOutputs out = forward(in, shift);
        check_forward(in, out);
        check_backward(in, backward(in, shift), out.epsilon);
    }
};

TEST_F(Reparameterize, EveryRaggedSize) {
    for (const HeadsShape& shape : all_shapes()) check(shape);
}

TEST_F(Reparameterize, UnalignedArrays) {
    check({33, 32, 32}, 1);
}

TEST_F(Reparameterize, InPlaceAndRepeatsBitForBit) {
    for (const HeadsShape& shape : {HeadsShape{129, 20, 64}, HeadsShape{70, 21, 21}}) {
        const Heads in(shape);
        const BackwardOutputs out = backward(in);
        for (const bool in_place : {false, true}) {
            const BackwardOutputs again = backward(in, 0, in_place);
            expect_same_bits(again.d_product, out.d_product, "d_product");
            expect_same_bits(again.d_mu_bias, out.d_mu_bias, "d_mu_bias");
            expect_same_bits(again.d_logvar_bias, out.d_logvar_bias, "d_logvar_bias");
        }
    }
}

TEST_F(Reparameterize, NanComesThrough) {
    for (const bool in_logvar : {false, true}) {
        SCOPED_TRACE(in_logvar);
        Heads in({3, 20, 32});
        in.product[64 + (in_logvar ? 32 : 0) + 7] = kNan;
        const ForwardOutputs out = forward(in);
        EXPECT_TRUE(std::isnan(out.z[27]));
        for (std::size_t r = 0; r < 3; ++r) EXPECT_EQ(std::isnan(out.kl[r]), r == 1) << r;
        EXPECT_TRUE(std::isnan(in_logvar ? out.logvar[27] : out.mu[27]));
        const BackwardOutputs back = backward(in);
        EXPECT_TRUE(std::isnan(back.d_product[64 + (in_logvar ? 32 : 0) + 7]));
        for (std::size_t j = 0; j < 20; ++j) {
            EXPECT_EQ(std::isnan(back.d_mu_bias[j]), !in_logvar && j == 7) << j;
            EXPECT_EQ(std::isnan(back.d_logvar_bias[j]), in_logvar && j == 7) << j;
        }
    }
}

TEST_F(Reparameterize, BadRequestsThrow) {
    auto array = output(64);
    auto index = upload(std::vector<std::uint32_t>(4, 0));
    const auto request = [&](int rows, int latent, int stride, float low) {
        const HeadsView heads{array.data(), array.data(), array.data(), rows,
                              latent,       stride,       low,          kHigh};
        kernels::reparameterize_backward(heads, noise_stream(), index.data(), 0, array.data(), 1,
                                         array.data(), array.data(), array.data(), {},
                                         stream().get());
    };
    EXPECT_THROW(request(-1, 4, 4, kLow), std::invalid_argument);
    EXPECT_THROW(request(4, -1, 4, kLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 3, kLow), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, 3.0f), std::invalid_argument);
    EXPECT_THROW(request(4, 4, 4, kLow), std::invalid_argument) << "no scratch";
}

}  // namespace
}  // namespace vae::test
