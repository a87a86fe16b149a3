#include "kernels/gradient_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "tests/device_arena.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::GradientRules;
using kernels::LossSums;
using kernels::StepRecord;

constexpr LossSums kBatch = {10, 2, 12, 4};

struct Result {
    std::vector<double> squares;
    std::vector<float> scales;
    bool is_taken = false;
    LossSums batch = {};
    StepRecord record = {};
};

class GradientStatistics : public KernelTest {
  protected:
    Result run(const Layout& layout, const std::vector<float>& arena, const GradientRules& rules,
               const LossSums& batch = kBatch, const StepRecord& record = {}, std::size_t shift = 0,
               unsigned long long step = 7) {
        DeviceArena device(stream(), layout);
        const kernels::ArenaTable table = device.table();
        auto gradients = upload(arena, shift);
        DeviceArray<double> squares(stream(), table.tensor_count);
        DeviceArray<double> partials(stream(), table.piece_count);
        auto scales = output(table.tensor_count);
        auto ticket = upload(std::vector<unsigned>{0});
        auto is_taken = upload(std::vector<unsigned>{77});
        auto losses = upload(std::vector<LossSums>{batch});
        auto records = upload(std::vector<StepRecord>{record});
        auto state = upload(std::vector<kernels::StepState>{{.step = step}});
        kernels::gradient_statistics(table, gradients.data(), rules, state.data(),
                                     {squares.data(), scales.data(), is_taken.data(), losses.data(),
                                      records.data(), partials.data(), ticket.data()},
                                     stream().get());
        EXPECT_EQ(ticket.download()[0], 0U);
        const unsigned taken = is_taken.download()[0];
        EXPECT_LE(taken, 1U);
        if (!arena.empty()) expect_same_bits(gradients.download(), arena, "gradients");
        return {squares.download(), scales.download(), taken == 1, losses.download()[0],
                records.download()[0]};
    }

    static std::vector<double> norms(const Layout& layout, const std::vector<float>& arena) {
        std::vector<double> result;
        for (const auto& [offset, size] : layout.tensors) {
            double sum = 0;
            for (std::size_t i = offset; i < offset + size; ++i) {
                sum += static_cast<double>(arena[i]) * static_cast<double>(arena[i]);
            }
            result.push_back(std::sqrt(sum));
        }
        return result;
    }

    // scales against the formula: sums of up to 65537 doubles, and one rounding to float.
    static void expect_scales(const Result& got, const std::vector<double>& norms,
                              const GradientRules& rules) {
        std::vector<double> factors;
        double total = 0;
        for (const double norm : norms) {
            factors.push_back(rules.normalize ? 1 / (norm + 1e-7) : 1);
            total += std::pow(norm * factors.back(), 2);
        }
        const double norm = std::sqrt(total);
        const double clip =
            rules.clip_norm > 0 && norm > rules.clip_norm ? rules.clip_norm / norm : 1;
        ASSERT_EQ(got.scales.size(), norms.size());
        for (std::size_t t = 0; t < norms.size(); ++t) {
            EXPECT_NEAR(got.squares[t], norms[t] * norms[t], 1e-12 * norms[t] * norms[t]) << t;
            const double want = factors[t] * clip;
            EXPECT_NEAR(got.scales[t], want, want * (kEpsilon + 1e-12)) << t;
        }
    }
};

TEST_F(GradientStatistics, NormsAndScalesOfRaggedTensors) {
    const Layout layout(ragged_sizes());
    const auto arena = layout.normals(1, 0.3f);
    const auto wanted = norms(layout, arena);
    for (const GradientRules& rules :
         {GradientRules{}, GradientRules{true, 0}, GradientRules{false, 1.5},
          GradientRules{false, 1e6}, GradientRules{true, 2}, GradientRules{true, 100}}) {
        SCOPED_TRACE(testing::Message() << rules.normalize << " " << rules.clip_norm);
        const Result got = run(layout, arena, rules);
        expect_scales(got, wanted, rules);
        EXPECT_TRUE(got.is_taken);
    }
}

TEST_F(GradientStatistics, EachSizeAlone) {
    for (const std::size_t size : ragged_sizes()) {
        SCOPED_TRACE(size);
        const Layout layout({size});
        const auto arena = layout.normals(2);
        for (const std::size_t shift : {0, 1}) {
            const Result got = run(layout, arena, {true, 0.5}, kBatch, {}, shift);
            expect_scales(got, norms(layout, arena), {true, 0.5});
            EXPECT_TRUE(got.is_taken);
        }
    }
}

// Pieces of 2048, and more of them than a warp adds in a turn.
TEST_F(GradientStatistics, ManyPieces) {
    const Layout layout({8192 * 1024 + 1, 5});
    const auto arena = layout.normals(3);
    expect_scales(run(layout, arena, {false, 1}), norms(layout, arena), {false, 1});
}

TEST_F(GradientStatistics, WithoutATensorTheLossAloneDecides) {
    const Layout layout(std::vector<std::size_t>{});
    EXPECT_TRUE(run(layout, {}, {}).is_taken);
    EXPECT_FALSE(run(layout, {}, {}, {kNan, 0, kNan, 1}).is_taken);
}

TEST_F(GradientStatistics, OffTheFactorIsExactlyOne) {
    const Layout layout({100, 7});
    const auto arena = layout.normals(4);
    EXPECT_EQ(run(layout, arena, {}).scales, (std::vector<float>{1, 1}));
    EXPECT_EQ(run(layout, arena, {false, 1e3}).scales, (std::vector<float>{1, 1}));
}

TEST_F(GradientStatistics, NoGradientIsNormalizedToNone) {
    const Layout layout({100, 7});
    const auto arena = layout.padded(std::vector<float>(layout.arena_size, 0.0f));
    const Result got = run(layout, arena, {true, 1});
    EXPECT_TRUE(got.is_taken);
    EXPECT_EQ(got.squares, (std::vector<double>{0, 0}));
    for (const float scale : got.scales) EXPECT_NEAR(scale, 1e7, 1);  // times zero
}

// The square of a large float is beyond the largest one.
TEST_F(GradientStatistics, LargeAndSmallGradientsAreFinite) {
    const Layout layout({1030});
    for (const float value : {3e38f, 1e30f, 1e-30f, 1e-45f}) {
        const auto arena = layout.padded(std::vector<float>(layout.arena_size, value));
        const Result got = run(layout, arena, {false, 1});
        EXPECT_TRUE(got.is_taken) << value;
        const double square = static_cast<double>(value) * static_cast<double>(value);
        EXPECT_NEAR(got.squares[0] / (1030 * square), 1, 1e-12) << value;
    }
}

TEST_F(GradientStatistics, ATakenStepAddsItsLosses) {
    const Layout layout({100});
    const StepRecord before = {{1, 2, 3, 4}, 5, 6, 0};
    const Result got = run(layout, layout.normals(5), {}, kBatch, before);
    EXPECT_TRUE(got.is_taken);
    EXPECT_EQ(got.record.losses.recon, 11);
    EXPECT_EQ(got.record.losses.kl, 4);
    EXPECT_EQ(got.record.losses.loss, 15);
    EXPECT_EQ(got.record.losses.examples, 8U);
    EXPECT_EQ(got.record.skipped, 5U);
    EXPECT_EQ(got.record.first_step, 6U);
    EXPECT_EQ(got.batch.recon, 0);
    EXPECT_EQ(got.batch.kl, 0);
    EXPECT_EQ(got.batch.loss, 0);
    EXPECT_EQ(got.batch.examples, 0U);
}

// Wherever a bad element is, the first tensor that has one is named, and the losses are dropped.
TEST_F(GradientStatistics, TheFirstBadTensorIsNamed) {
    const Layout layout(ragged_sizes());
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float bad : {kNan, infinity, -infinity}) {
        for (std::size_t t = 0; t < layout.tensors.size(); ++t) {
            const auto [offset, size] = layout.tensors[t];
            if (size == 0) continue;
            for (const std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
                auto arena = layout.normals(6);
                arena[offset + at] = bad;
                arena[layout.tensors.back().offset + 70] = bad;
                const StepRecord before = {{1, 2, 3, 4}, 0, 99, 99};
                const Result got = run(layout, arena, {}, kBatch, before);
                EXPECT_FALSE(got.is_taken);
                EXPECT_EQ(got.record.skipped, 1U);
                EXPECT_EQ(got.record.first_step, 7U);
                EXPECT_EQ(got.record.first_tensor, t);
                EXPECT_EQ(got.record.losses.examples, 4U);
                EXPECT_EQ(got.record.losses.loss, 3);
                EXPECT_EQ(got.batch.examples, 0U);
            }
        }
    }
}

TEST_F(GradientStatistics, TheFirstSkippedStepIsKept) {
    const Layout layout({5, 6});
    auto arena = layout.normals(7);
    arena[layout.tensors[0].offset] = kNan;
    const Result got = run(layout, arena, {}, kBatch, {{}, 2, 3, 1});
    EXPECT_EQ(got.record.skipped, 3U);
    EXPECT_EQ(got.record.first_step, 3U);
    EXPECT_EQ(got.record.first_tensor, 1U);
}

TEST_F(GradientStatistics, ALossThatIsNotFiniteSkipsTheStep) {
    const Layout layout({100, 7});
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        const Result got = run(layout, layout.normals(8), {}, {bad, 0, bad, 3});
        EXPECT_FALSE(got.is_taken);
        EXPECT_EQ(got.record.skipped, 1U);
        EXPECT_EQ(got.record.first_tensor, 2U);  // no tensor
        EXPECT_EQ(got.record.losses.examples, 0U);
        EXPECT_EQ(got.record.losses.loss, 0);
        EXPECT_EQ(got.batch.loss, 0);
    }
}

TEST_F(GradientStatistics, TheSameBitsEveryTime) {
    const Layout layout(ragged_sizes());
    const auto arena = layout.normals(9);
    const Result first = run(layout, arena, {true, 1});
    for (int i = 0; i < 3; ++i) {
        const Result again = run(layout, arena, {true, 1});
        EXPECT_EQ(again.squares, first.squares);
        expect_same_bits(again.scales, first.scales, "scales");
    }
}

TEST_F(GradientStatistics, ANegativeClipNormIsRefused) {
    for (const double clip : {-1.0, std::nan("")}) {
        EXPECT_THROW(
            kernels::gradient_statistics({}, nullptr, {false, clip}, nullptr, {}, stream().get()),
            std::invalid_argument);
    }
}

}  // namespace
}  // namespace vae::test
