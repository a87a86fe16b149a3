#include "host/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <vector>

namespace vae {
namespace {

constexpr NoiseAddress kAddress{0x0123456789ABCDEF, Purpose::epsilon, 17, 4242, 3};

// From Random123's kat_vectors (Salmon et al. 2011), lines "philox4x32 10".
TEST(Noise, PhiloxGivesTheKnownAnswers) {
    EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
              (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32_10({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
              (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(
        philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
        (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Noise, AddressIsTheDocumentedCounter) {
    EXPECT_EQ(noise_block(kAddress, 9),
              philox4x32_10({9, 3 | 4U << 24, 4242, 17}, {0x89ABCDEF, 0x01234567}));
}

TEST(Noise, EveryFieldOfTheAddressChangesEveryWord) {
    const PhiloxBlock base = noise_block(kAddress, 0);
    std::vector<PhiloxBlock> others = {noise_block(kAddress, 1)};
    const auto vary = [&](auto change) {
        NoiseAddress address = kAddress;
        change(address);
        others.push_back(noise_block(address, 0));
    };
    vary([](NoiseAddress& a) { a.seed += 1; });
    vary([](NoiseAddress& a) { a.seed += std::uint64_t{1} << 32; });
    vary([](NoiseAddress& a) { a.purpose = Purpose::evaluation_epsilon; });
    vary([](NoiseAddress& a) { a.step += 1; });
    vary([](NoiseAddress& a) { a.example += 1; });
    vary([](NoiseAddress& a) { a.sample += 1; });
    for (std::size_t i = 0; i < others.size(); ++i) {
        // Equal words of unrelated blocks would be a chance of 2^-30 in all.
        for (std::size_t w = 0; w < 4; ++w) EXPECT_NE(others[i][w], base[w]) << "field " << i;
    }
}

TEST(Noise, NoTwoAddressesShareABlock) {
    std::set<PhiloxBlock> seen;
    std::size_t count = 0;
    for (std::uint32_t purpose = 0; purpose < 8; ++purpose) {
        for (std::uint32_t step = 0; step < 5; ++step) {
            for (std::uint32_t example = 0; example < 5; ++example) {
                for (std::uint32_t sample = 0; sample < 5; ++sample) {
                    for (std::uint32_t block = 0; block < 5; ++block) {
                        seen.insert(noise_block(
                            {1, static_cast<Purpose>(purpose), step, example, sample}, block));
                        ++count;
                    }
                }
            }
        }
    }
    EXPECT_EQ(seen.size(), count);
}

TEST(Noise, UniformsAreTheWordsScaled) {
    std::vector<float> out(7);
    fill_uniform(kAddress, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const std::uint32_t word = noise_block(kAddress, static_cast<std::uint32_t>(i / 4))[i % 4];
        EXPECT_EQ(out[i], static_cast<float>(word) * 0x1p-32F + 0x1p-33F) << i;
    }
}

TEST(Noise, AnElementDoesNotDependOnHowManyAreAskedFor) {
    for (const std::size_t size : {0U, 1U, 3U, 4U, 5U, 31U}) {
        std::vector<float> all(32);
        std::vector<float> some(size);
        fill_uniform(kAddress, all);
        fill_uniform(kAddress, some);
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << size;
        fill_normal(kAddress, all);
        fill_normal(kAddress, some);
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << size;
    }
}

TEST(Noise, FloatAndDoubleNormalsAgree) {
    std::vector<float> single(10001);
    std::vector<double> exact(single.size());
    fill_normal(kAddress, single);
    fill_normal(kAddress, exact);
    for (std::size_t i = 0; i < single.size(); ++i) {
        // |s| <= sqrt(2·33·ln 2) < 6.8, and log, sqrt, sin and the product each round once or
        // twice: 5 roundings of 6e-8.
        ASSERT_NEAR(static_cast<double>(single[i]), exact[i], 6.8 * 5 * 6e-8) << i;
    }
}

// Kolmogorov's statistic sqrt(n)·sup |F_n − F|; above 1.95 with probability .001 for a true sample.
double kolmogorov(std::vector<float> sample, const std::function<double(double)>& cdf) {
    std::sort(sample.begin(), sample.end());
    const auto n = static_cast<double>(sample.size());
    double largest = 0;
    for (std::size_t i = 0; i < sample.size(); ++i) {
        const double at = cdf(static_cast<double>(sample[i]));
        const auto rank = static_cast<double>(i);
        largest = std::max({largest, at - rank / n, (rank + 1) / n - at});
    }
    return std::sqrt(n) * largest;
}

// Moments within four standard errors: wrong by chance once in 16 000, and the seed is fixed.
double standard_moment(const std::vector<float>& sample, double mean, double deviation, int power) {
    double sum = 0;
    for (const float value : sample) {
        sum += std::pow((static_cast<double>(value) - mean) / deviation, power);
    }
    return sum / static_cast<double>(sample.size());
}

TEST(Noise, UniformsAreUniform) {
    // Laid out as training uses them: many examples, few elements each.
    std::vector<float> sample(200000);
    for (std::uint32_t row = 0; row < 1000; ++row) {
        fill_uniform({1, Purpose::dynamic_binarization, 0, row, 0},
                     std::span(sample).subspan(row * 200, 200));
    }
    EXPECT_LT(kolmogorov(sample, [](double u) { return u; }), 1.95);
    const double n = 200000;
    const double deviation = std::sqrt(1.0 / 12);
    EXPECT_NEAR(standard_moment(sample, .5, deviation, 1), 0, 4 / std::sqrt(n));
    EXPECT_NEAR(standard_moment(sample, .5, deviation, 2), 1, 4 * std::sqrt(.8 / n));
    EXPECT_GT(*std::min_element(sample.begin(), sample.end()), 0.0F);
    EXPECT_LE(*std::max_element(sample.begin(), sample.end()), 1.0F);
}

TEST(Noise, NormalsAreNormal) {
    std::vector<float> sample(200000);
    for (std::uint32_t row = 0; row < 10000; ++row) {
        fill_normal({1, Purpose::epsilon, 3, row, 0}, std::span(sample).subspan(row * 20, 20));
    }
    EXPECT_LT(kolmogorov(sample, [](double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }),
              1.95);
    const double n = 200000;
    EXPECT_NEAR(standard_moment(sample, 0, 1, 1), 0, 4 / std::sqrt(n));
    EXPECT_NEAR(standard_moment(sample, 0, 1, 2), 1, 4 * std::sqrt(2 / n));
    EXPECT_NEAR(standard_moment(sample, 0, 1, 3), 0, 4 * std::sqrt(15 / n));
    EXPECT_NEAR(standard_moment(sample, 0, 1, 4), 3, 4 * std::sqrt(96 / n));
}

TEST(Noise, NeighboursAreUncorrelated) {
    std::vector<float> sample(200000);
    fill_normal({1, Purpose::epsilon, 0, 0, 0}, sample);
    for (const std::size_t lag : {1U, 2U, 3U, 4U, 20U}) {
        double sum = 0;
        for (std::size_t i = lag; i < sample.size(); ++i) {
            sum += static_cast<double>(sample[i]) * static_cast<double>(sample[i - lag]);
        }
        const auto n = static_cast<double>(sample.size() - lag);
        EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n)) << "lag " << lag;  // four standard errors
    }
}

}  // namespace
}  // namespace vae
