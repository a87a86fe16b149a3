// Free bits on the CPU: what the loss is, what it leaves as it is, and which gradients vanish.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "host/backend.h"
#include "host/cpu/chunks.h"
#include "host/cpu/free_bits.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = 7;
constexpr std::uint32_t kBatch = 13;
constexpr double kBeta = 0.7;

class FreeBits : public testing::Test {
  protected:
    FreeBits() {
        config_.model.encoder_hidden = {5};
        config_.model.decoder_hidden = {6};
        config_.model.latent = 3;
        config_.model.activation = Activation::tanh;
        splits_.train = test::random_floats(kBatch, kPixels);
        splits_.test = test::random_floats(kBatch, kPixels, kBatch);
    }

    std::unique_ptr<Backend> backend(const ObjectiveConfig& objective, bool is_double = true) {
        Config config = config_;
        config.objective = objective;
        const ParameterLayout layout(config.model, kPixels);
        auto made =
            is_double ? make_cpu_double_backend(config, layout) : make_cpu_backend(config, layout);
        made->set_data(splits_);
        // Dimensions whose means of the KL are far from each other.
        TrainingState state = test::initial_state(layout, config);
        float* bias = state.parameters.data() + layout.heads.logvar_bias.offset;
        bias[0] = 1.5F;
        bias[1] = 0;
        bias[2] = -1.5F;
        made->set_state(state);
        return made;
    }

    Trace trace(const ObjectiveConfig& objective, bool is_double = true) {
        return backend(objective, is_double)->trace({0, rows_, kBatch, {{0, kBeta}}});
    }

    // Means over the batch of each dimension's KL, from mu and logvar.
    static std::vector<double> means(const Trace& trace) {
        const auto& mu = test::find(trace, "mu").values;
        const auto& logvar = test::find(trace, "logvar").values;
        std::vector<double> all(3);
        for (std::size_t i = 0; i < mu.size(); ++i) {
            all[i % 3] += (mu[i] * mu[i] + std::exp(logvar[i]) - 1 - logvar[i]) / 2 / kBatch;
        }
        return all;
    }

    static double mean(const Trace& trace, const std::string& name) {
        double sum = 0;
        for (const double value : test::find(trace, name).values) sum += value;
        return sum / static_cast<double>(test::find(trace, name).values.size());
    }

    Config config_;
    Splits splits_;
    std::vector<std::uint32_t> rows_ = test::first_rows(kBatch);
};

// Of numbers of order one, a few hundred operations in double.
constexpr double kRounding = 1e-13;

TEST_F(FreeBits, LossHasTheFloorAndTheOtherNumbersHaveNot) {
    const Trace plain = trace({});
    const auto of = means(plain);
    // What the floors below are chosen for.
    EXPECT_GT(of[0], 0.6);
    EXPECT_LT(of[1], 0.25);
    EXPECT_GT(of[2], 0.25);
    EXPECT_LT(of[2], 0.6);
    for (const double nats : {1e-3, 0.25, 0.6, 9.0}) {
        for (const FreeBitsPer per : {FreeBitsPer::dimension, FreeBitsPer::total}) {
            const Trace floored = trace({.free_bits = nats, .free_bits_per = per});
            double term = 0;
            for (const double each : of) term += std::max(each, nats);
            if (per == FreeBitsPer::total) term = std::max(of[0] + of[1] + of[2], nats);
            EXPECT_NEAR(mean(floored, "loss"), mean(plain, "recon") + kBeta * term, kRounding);
            for (const char* name : {"recon", "kl", "z"}) {
                EXPECT_EQ(test::find(floored, name).values, test::find(plain, name).values) << name;
            }
        }
    }
}

TEST_F(FreeBits, ZeroChangesNoBit) {
    for (const bool is_double : {true, false}) {
        const Trace plain = trace({}, is_double);
        const Trace zero = trace({.free_bits = 0, .free_bits_per = FreeBitsPer::total}, is_double);
        ASSERT_EQ(plain.size(), zero.size());
        for (std::size_t i = 0; i < plain.size(); ++i) {
            EXPECT_EQ(plain[i].values, zero[i].values) << plain[i].name;
        }
    }
}

// A floor that every mean is above changes gradients by no bit, and the loss by rounding.
TEST_F(FreeBits, ALowFloorLeavesTheGradient) {
    for (const FreeBitsPer per : {FreeBitsPer::dimension, FreeBitsPer::total}) {
        const Trace plain = trace({});
        const Trace low = trace({.free_bits = 1e-4, .free_bits_per = per});
        for (std::size_t i = 0; i < plain.size(); ++i) {
            if (plain[i].name == "loss") {
                EXPECT_NEAR(plain[i].values[0], low[i].values[0], kRounding);
            } else {
                EXPECT_EQ(plain[i].values, low[i].values) << plain[i].name;
            }
        }
    }
}

// Under a high one the gradient is that of beta = 0: recon alone.
TEST_F(FreeBits, AHighFloorLeavesReconAlone) {
    for (const FreeBitsPer per : {FreeBitsPer::dimension, FreeBitsPer::total}) {
        for (const EncoderGradient gradient : {EncoderGradient::pathwise, EncoderGradient::score}) {
            const Trace alone =
                backend({.samples = 2, .gradient = gradient})->trace({0, rows_, kBatch, {{0, 0}}});
            const Trace high =
                trace({.samples = 2, .gradient = gradient, .free_bits = 1e3, .free_bits_per = per});
            std::size_t compared = 0;
            for (const TracedTensor& tensor : alone) {
                if (!tensor.name.starts_with("grad.")) continue;
                EXPECT_EQ(tensor.values, test::find(high, tensor.name).values) << tensor.name;
                ++compared;
            }
            EXPECT_EQ(compared, 10U);
        }
    }
}

TEST_F(FreeBits, TotalsOfTrainingAndEvaluationAreTheLossOfTheTrace) {
    for (const bool is_double : {true, false}) {
        const double rounding = is_double ? kRounding : 1e-6;
        const ObjectiveConfig objective{.samples = 2, .free_bits = 0.3};
        const auto made = backend(objective, is_double);
        const Trace traced = made->trace({0, rows_, kBatch, {{0, kBeta}}});
        made->train({0, rows_, kBatch, {{0, kBeta}}});
        const LossTotals totals = made->take_totals().losses;
        EXPECT_NEAR(totals.loss / kBatch, mean(traced, "loss"), rounding * totals.loss);
        EXPECT_NEAR(totals.kl / kBatch, mean(traced, "kl"), rounding * totals.loss);
        // The test split is one batch, and its kl is that without a floor.
        const LossTotals floored = made->evaluate(Split::test, kBeta);
        const LossTotals plain = backend({.samples = 2}, is_double)->evaluate(Split::test, kBeta);
        EXPECT_EQ(floored.kl, plain.kl);
        EXPECT_EQ(floored.recon, plain.recon);
        EXPECT_GT(floored.loss, plain.loss + 0.05 * kBatch);
    }
}

// Float against double, at sizes around the vector widths and with a ragged chunk.
TEST(FreeBitsOperation, FloatMatchesDoubleAndNanShows) {
    constexpr std::size_t kRows = cpu::kChunkRows + 3;
    for (const std::size_t latent : {1U, 7U, 8U, 31U, 32U, 33U, 513U}) {
        std::vector<double> mu(kRows * latent);
        std::vector<double> logvar(mu.size());
        fill_normal({3, Purpose::synthetic_data, 0, 1, 0}, mu);
        fill_normal({3, Purpose::synthetic_data, 0, 2, 0}, logvar);
        std::vector<float> mu_float(mu.begin(), mu.end());
        std::vector<float> logvar_float(logvar.begin(), logvar.end());
        const auto run = [&]<class T>(const std::vector<T>& m, const std::vector<T>& l) {
            std::vector<T> mask(latent);
            std::vector<T> loss(kRows);
            std::vector<T> partials(cpu::chunk_count(kRows) * latent);
            cpu::free_bits_per_dimension(m.data(), l.data(), kRows, latent, 0.9, mask.data(),
                                         loss.data(), partials.data());
            return std::pair(mask, loss);
        };
        const auto exact = run(mu, logvar);
        const auto rounded = run(mu_float, logvar_float);
        for (std::size_t j = 0; j < latent; ++j) {
            EXPECT_EQ(exact.first[j], static_cast<double>(rounded.first[j])) << j;
        }
        // One after the other, as loops that are not vectorised add, each sum is rounded.
        const double gate = 1e-6 + static_cast<double>(latent) * 0x1p-24;
        for (std::size_t b = 0; b < kRows; ++b) {
            EXPECT_NEAR(rounded.second[b], exact.second[b], gate * exact.second[b]) << b;
        }
        mu_float[0] = std::numeric_limits<float>::quiet_NaN();
        const auto with_nan = run(mu_float, logvar_float);
        EXPECT_EQ(with_nan.first[0], 1.0F);
        EXPECT_TRUE(std::isnan(with_nan.second[0]));
        EXPECT_FALSE(std::isnan(with_nan.second[1]));
    }
}

}  // namespace
}  // namespace vae
