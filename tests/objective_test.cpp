#include "kernels/objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::Objective;

constexpr float kBeta = 0.6f;
constexpr double kMean = 95.5;  // a running mean
// The kernel works in double from the same floats, and rounds once. A weight inherits the rounding
// of its exponent, of a few hundred in double.
constexpr double kRoundings = 2;

struct Inputs {
    Inputs(int b, int s)
        : examples(b),
          samples(s),
          recon(random_normals(rows(), 1, 3.0f)),
          log_ratio(random_normals(rows(), 2, 2.0f)),
          kl(random_uniforms(static_cast<std::size_t>(b), 3)) {
        for (float& value : recon) value += 100;
    }
    std::size_t rows() const {
        return static_cast<std::size_t>(examples) * static_cast<std::size_t>(samples);
    }

    int examples;
    int samples;
    std::vector<float> recon;
    std::vector<float> log_ratio;
    std::vector<float> kl;
};

struct Outputs {
    std::vector<float> recon, kl, loss, decoder, path, ratio, score, signal;
};

bool is_score(Objective kind) {
    return kind != Objective::elbo && kind != Objective::iwae && kind != Objective::dreg;
}

Bound rounded(double value) {
    return {value, kRoundings * kEpsilon * std::abs(value)};
}

// The table of kernels/objective.h in plain loops.
struct Reference {
    std::vector<Bound> recon, kl, loss, decoder, path, ratio, score, signal;

    Reference(const Inputs& in, Objective kind, bool is_sampled) {
        const auto samples = static_cast<std::size_t>(in.samples);
        for (std::size_t b = 0; b < static_cast<std::size_t>(in.examples); ++b) {
            add_example(in, kind, is_sampled, b, samples);
        }
    }

  private:
    void add_example(const Inputs& in, Objective kind, bool is_sampled, std::size_t b,
                     std::size_t samples) {
        const double beta = kBeta;
        const double count = static_cast<double>(samples);
        double recon_sum = 0, ratio_sum = 0, weight_sum = 0, signal_sum = 0;
        const auto log_weight = [&](std::size_t r) {
            return -static_cast<double>(in.recon[r]) - beta * in.log_ratio[r];
        };
        const auto signal_of = [&](std::size_t r) {
            return in.recon[r] + (is_sampled ? beta * in.log_ratio[r] : 0);
        };
        // log w is about −100: exp(log w + 100) is of order 1.
        for (std::size_t r = b * samples; r < (b + 1) * samples; ++r) {
            recon_sum += in.recon[r];
            ratio_sum += in.log_ratio[r];
            weight_sum += std::exp(log_weight(r) + 100);
            signal_sum += signal_of(r);
        }
        const double kl_mean = is_sampled ? ratio_sum / count : in.kl[b];
        const bool is_weighted = kind == Objective::iwae || kind == Objective::dreg;
        recon.push_back(rounded(recon_sum / count));
        // A mean of terms of both signs.
        kl.push_back({kl_mean, kRoundings * kEpsilon * (std::abs(kl_mean) + 1e-6)});
        loss.push_back(rounded(is_weighted ? 100 - std::log(weight_sum / count)
                                           : recon_sum / count + beta * kl_mean));
        if (is_score(kind)) signal.push_back(rounded(signal_sum / count));
        for (std::size_t r = b * samples; r < (b + 1) * samples; ++r) {
            const double v = std::exp(log_weight(r) + 100) / weight_sum;
            const double plain = is_sampled ? beta / count : 0;
            double advantage = signal_of(r);
            if (kind == Objective::score_running_mean) advantage -= kMean;
            if (kind == Objective::score_leave_one_out) {
                advantage -= (signal_sum - signal_of(r)) / (count - 1);
            }
            const bool is_dreg = kind == Objective::dreg;
            decoder.push_back(rounded(is_weighted ? v : 1 / count));
            const double factor = 1 - beta * (1 - v);
            path.push_back(rounded(is_dreg ? factor : is_score(kind) ? 0 : 1));
            ratio.push_back(rounded(is_dreg          ? beta * v * factor
                                    : is_weighted    ? beta * v
                                    : is_score(kind) ? 0
                                                     : plain));
            // The advantage is a difference of numbers of about 100, in double.
            Bound score_bound = rounded(is_dreg          ? 0
                                        : is_weighted    ? beta * v
                                        : is_score(kind) ? advantage / count
                                                         : plain);
            score_bound.tolerance += 1e-12;
            score.push_back(score_bound);
        }
    }
};

class ObjectiveKernel : public KernelTest {
  protected:
    Outputs run(const Inputs& in, Objective kind, bool is_sampled,
                const std::vector<float>* other_kl = nullptr) {
        auto recon = upload(in.recon);
        auto log_ratio = upload(in.log_ratio);
        auto kl = upload(in.kl);
        auto mean = upload(std::vector<double>{kMean});
        auto loss_kl = upload(other_kl == nullptr ? std::vector<float>() : *other_kl);
        const auto examples = static_cast<std::size_t>(in.examples);
        auto recon_out = output(examples);
        auto kl_out = output(examples);
        auto loss = output(examples);
        auto signal = output(is_score(kind) ? examples : 0);
        auto decoder = output(in.rows());
        auto path = output(in.rows());
        auto ratio = output(in.rows());
        auto score = output(in.rows());
        kernels::objective(
            kind,
            {recon.data(), log_ratio.data(), is_sampled ? nullptr : kl.data(), in.examples,
             in.samples, kBeta, nullptr, other_kl == nullptr ? nullptr : loss_kl.data()},
            mean.data(),
            {recon_out.data(), kl_out.data(), loss.data(), decoder.data(), path.data(),
             ratio.data(), score.data(), is_score(kind) ? signal.data() : nullptr},
            stream().get());
        return {recon_out.download(), kl_out.download(), loss.download(),  decoder.download(),
                path.download(),      ratio.download(),  score.download(), signal.download()};
    }

    void check(int examples, int samples, Objective kind, bool is_sampled) {
        SCOPED_TRACE(testing::Message() << examples << " examples of " << samples
                                        << " draws, objective " << static_cast<int>(kind)
                                        << (is_sampled ? ", sampled" : "") << ", seed " << kSeed);
        const Inputs in(examples, samples);
        const Outputs out = run(in, kind, is_sampled);
        const Reference want(in, kind, is_sampled);
        expect_close(out.recon, want.recon, "recon");
        expect_close(out.kl, want.kl, "kl");
        expect_close(out.loss, want.loss, "loss");
        expect_close(out.decoder, want.decoder, "decoder");
        expect_close(out.path, want.path, "path");
        expect_close(out.ratio, want.ratio, "ratio");
        expect_close(out.score, want.score, "score");
        expect_close(out.signal, want.signal, "signal");
    }
};

constexpr Objective kAll[] = {Objective::elbo,
                              Objective::iwae,
                              Objective::dreg,
                              Objective::score,
                              Objective::score_leave_one_out,
                              Objective::score_running_mean};

TEST_F(ObjectiveKernel, EveryKindAndRaggedSize) {
    for (const Objective kind : kAll) {
        for (const bool is_sampled : {false, true}) {
            for (const int samples : {1, 2, 31, 32, 33, 127}) {
                if (samples == 1 && kind == Objective::score_leave_one_out) continue;
                for (const int examples : {0, 1, 7, 8, 9, 101}) {
                    check(examples, samples, kind, is_sampled);
                }
            }
        }
    }
}

// exp(log w) would overflow or vanish in double; only differences matter.
TEST_F(ObjectiveKernel, HugeLossesNeitherOverflowNorVanish) {
    for (const float level : {-5000.0f, 5000.0f}) {
        Inputs in(3, 5);
        for (std::size_t r = 0; r < in.rows(); ++r) {
            in.recon[r] = level + static_cast<float>(r % 5);
            in.log_ratio[r] = 0;
        }
        const Outputs out = run(in, Objective::iwae, true);
        double sum = 0;
        for (int s = 0; s < 5; ++s) sum += std::exp(-s);
        for (const float loss : out.loss) EXPECT_NEAR(loss, level - std::log(sum / 5), 5e-4);
        for (std::size_t r = 0; r < in.rows(); ++r) {
            EXPECT_NEAR(out.decoder[r], std::exp(-static_cast<double>(r % 5)) / sum, 1e-7);
        }
    }
}

// The loss takes it; kl, and every weight, stay as they are.
TEST_F(ObjectiveKernel, AnotherKlTermChangesTheLossAlone) {
    for (const Objective kind : {Objective::elbo, Objective::score}) {
        const Inputs in(33, 3);
        const Outputs plain = run(in, kind, false);
        const auto other = random_uniforms(33, 9);
        const Outputs out = run(in, kind, false, &other);
        for (std::size_t b = 0; b < 33; ++b) {
            double recon = 0;
            for (std::size_t s = 0; s < 3; ++s) recon += in.recon[3 * b + s] / 3.0;
            const double want = recon + static_cast<double>(kBeta) * other[b];
            EXPECT_NEAR(out.loss[b], want, kRoundings * kEpsilon * want) << b;
        }
        expect_same_bits(out.kl, plain.kl, "kl");
        expect_same_bits(out.score, plain.score, "score");
        expect_same_bits(out.path, plain.path, "path");
    }
    const Inputs in(4, 3);
    EXPECT_THROW(run(in, Objective::iwae, false, &in.kl), std::invalid_argument);
}

TEST_F(ObjectiveKernel, NanComesThroughInItsExample) {
    for (const Objective kind : kAll) {
        Inputs in(4, 3);
        in.recon[4] = kNan;
        const Outputs out = run(in, kind, true);
        for (std::size_t b = 0; b < 4; ++b) {
            EXPECT_EQ(std::isnan(out.loss[b]), b == 1) << b;
            EXPECT_EQ(std::isnan(out.recon[b]), b == 1) << b;
        }
    }
}

TEST_F(ObjectiveKernel, RunningMeanFollowsTheSignal) {
    for (const int examples : {1, 255, 256, 257, 1000}) {
        SCOPED_TRACE(examples);
        const auto signal = random_normals(static_cast<std::size_t>(examples), 4, 10);
        double mean = 0;
        for (const float value : signal) mean += value / static_cast<double>(examples);
        auto device_signal = upload(signal);
        auto running = upload(std::vector<double>{0});
        kernels::update_running_mean(device_signal.data(), examples, 0.9, running.data(),
                                     stream().get());
        EXPECT_NEAR(running.download()[0], mean, 1e-12);
        auto later = upload(std::vector<double>{4});
        kernels::update_running_mean(device_signal.data(), examples, 0.9, later.data(),
                                     stream().get());
        EXPECT_NEAR(later.download()[0], 4 + 0.1 * (mean - 4), 1e-12);
    }
    auto kept = upload(std::vector<double>{4});
    auto broken = upload(std::vector<float>{1, kNan});
    kernels::update_running_mean(broken.data(), 2, 0.9, kept.data(), stream().get());
    kernels::update_running_mean(broken.data(), 0, 0.9, kept.data(), stream().get());
    EXPECT_EQ(kept.download()[0], 4);
}

TEST_F(ObjectiveKernel, BadRequestsThrow) {
    auto array = output(8);
    const auto request = [&](Objective kind, const kernels::ObjectiveInputs& inputs) {
        kernels::objective(kind, inputs, nullptr, {.loss = array.data()}, stream().get());
    };
    const float* const a = array.data();
    EXPECT_THROW(request(Objective::elbo, {a, a, a, -1, 1, 1}), std::invalid_argument);
    EXPECT_THROW(request(Objective::elbo, {a, a, a, 2, 0, 1}), std::invalid_argument);
    EXPECT_THROW(request(Objective::elbo, {a, nullptr, nullptr, 2, 1, 1}), std::invalid_argument);
    EXPECT_THROW(request(Objective::iwae, {a, nullptr, a, 2, 1, 1}), std::invalid_argument);
    EXPECT_THROW(request(Objective::score_leave_one_out, {a, a, a, 2, 1, 1}),
                 std::invalid_argument);
    EXPECT_THROW(request(Objective::score_running_mean, {a, a, a, 2, 1, 1}), std::invalid_argument);
    EXPECT_THROW(kernels::update_running_mean(array.data(), -1, 0.9, nullptr, stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
