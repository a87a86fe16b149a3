#include "kernels/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/device_arena.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

using kernels::OptimizerSettings;
using kernels::StepState;
using kernels::UpdateRule;

constexpr UpdateRule kRules[] = {UpdateRule::adam, UpdateRule::adagrad, UpdateRule::momentum,
                                 UpdateRule::sgd};

int moments_of(UpdateRule rule) {
    return rule == UpdateRule::adam ? 2 : rule == UpdateRule::sgd ? 0 : 1;
}

// What holds for all steps, and of one.
struct Step : OptimizerSettings, StepState {};

// Coefficients of the third step that are each different from doing nothing.
Step step_of(UpdateRule rule) {
    Step step;
    step.rule = rule;
    step.epsilon = 1e-6f;
    step.momentum = 0.8f;
    step.step_size = 0.01f;
    step.weight_decay = 0.05f;
    step.shrink = 0.97f;
    step.average_decay = 0.9;
    if (rule == UpdateRule::adam) {
        step.step_size = static_cast<float>(0.01 / (1 - std::pow(step.beta1, 3)));
        step.inverse_sqrt_correction2 =
            static_cast<float>(1 / std::sqrt(1 - std::pow(step.beta2, 3)));
    }
    return step;
}

struct Arenas {
    explicit Arenas(const Layout& layout)
        : gradients(layout.normals(1)),
          parameters(layout.normals(2)),
          moment1(layout.normals(3, 0.1f)),
          moment2(layout.padded(random_uniforms(layout.arena_size, 4))),
          average(layout.normals(5)) {
        // Of Adagrad it is a sum of squares.
        positive = layout.padded(random_uniforms(layout.arena_size, 6));
    }
    std::vector<float> gradients, parameters, moment1, moment2, average, positive;
};

struct Updated {
    std::vector<Bound> parameters, moment1, moment2, average;
};

// The formulas in double, each result with a bound on what float makes of it.
void add_element(const Step& c, double scale, double gradient, double p, double m1, double m2,
                 double average, Updated& out) {
    // Scaled gradient, decay and their sum.
    Sum g;
    g.add(scale * gradient);
    g.add(c.weight_decay * p);
    const double g_error = 3 * kEpsilon * g.magnitude;
    Bound u;
    Bound new1 = {m1, 0};
    Bound new2 = {m2, 0};
    if (c.rule == UpdateRule::adam) {
        // Coefficients, products and sums: 3 roundings and the gradient's; of the square twice
        // that.
        const double rest1 = 1 - c.beta1;
        const double rest2 = 1 - c.beta2;
        new1 = {c.beta1 * m1 + rest1 * g.value,
                rest1 * g_error + 3 * kEpsilon * (std::abs(c.beta1 * m1) + rest1 * g.magnitude)};
        new2 = {c.beta2 * m2 + rest2 * g.value * g.value,
                2 * rest2 * g.magnitude * g_error +
                    4 * kEpsilon * (c.beta2 * m2 + rest2 * g.magnitude * g.magnitude)};
        // Half of v's relative error by the root; a root, product, sum and quotient: 4 roundings.
        const double root = std::sqrt(new2.value) * c.inverse_sqrt_correction2;
        const double denominator = root + c.epsilon;
        u.value = new1.value / denominator;
        u.tolerance = new1.tolerance / denominator +
                      std::abs(u.value) * (new2.tolerance / new2.value + 5 * kEpsilon);
    } else if (c.rule == UpdateRule::adagrad) {
        new1 = {m1 + g.value * g.value,
                2 * g.magnitude * g_error + 2 * kEpsilon * (m1 + g.magnitude * g.magnitude)};
        const double denominator = std::sqrt(new1.value) + c.epsilon;
        u.value = g.value / denominator;
        u.tolerance = g_error / denominator +
                      std::abs(u.value) * (new1.tolerance / new1.value + 4 * kEpsilon);
    } else if (c.rule == UpdateRule::momentum) {
        new1 = {c.momentum * m1 + g.value,
                g_error + 2 * kEpsilon * (std::abs(c.momentum * m1) + g.magnitude)};
        u = new1;
    } else {
        u = {g.value, g_error};
    }
    const double moved = c.shrink * p - c.step_size * u.value;
    const double size = std::abs(c.shrink * p) + std::abs(c.step_size * u.value);
    const Bound new_p = {moved, c.step_size * u.tolerance + 2 * kEpsilon * size};
    const double rest = 1 - c.average_decay;
    out.parameters.push_back(new_p);
    out.moment1.push_back(new1);
    out.moment2.push_back(new2);
    out.average.push_back(
        {c.average_decay * average + rest * moved,
         rest * new_p.tolerance +
             3 * kEpsilon * (std::abs(c.average_decay * average) + rest * std::abs(moved))});
}

class OptimizerKernel : public KernelTest {
  protected:
    // Everything that a launch changes, or the bits that it must leave.
    void check(const Layout& layout, UpdateRule rule, bool has_average, std::size_t shift = 0,
               bool is_taken = true, bool has_copy = true) {
        SCOPED_TRACE(testing::Message()
                     << "rule " << static_cast<int>(rule) << ", average " << has_average
                     << ", copy " << has_copy << ", shift " << shift);
        const Arenas before(layout);
        const Step step = step_of(rule);
        const auto& first = rule == UpdateRule::adagrad ? before.positive : before.moment1;
        DeviceArena device(stream(), layout);
        std::vector<float> factors;
        for (std::size_t t = 0; t < layout.tensors.size(); ++t) {
            factors.push_back(1.5f - 0.125f * static_cast<float>(t % 8));
        }
        auto scales = upload(factors);
        auto word = upload(std::vector<unsigned>{is_taken ? 1U : 0U});
        auto gradients = upload(before.gradients, shift);
        auto parameters = upload(before.parameters, shift);
        auto moment1 = upload(first, shift);
        auto moment2 = upload(before.moment2, shift);
        auto average = upload(before.average, shift);
        const std::vector<float> other = layout.normals(7);
        auto copy = upload(to_bf16(other), shift);
        auto state = upload(std::vector<StepState>{step});
        kernels::optimizer(
            step, state.data(), device.table(), scales.data(), word.data(),
            {gradients.data(), parameters.data(), moments_of(rule) > 0 ? moment1.data() : nullptr,
             moments_of(rule) > 1 ? moment2.data() : nullptr,
             has_average ? average.data() : nullptr, has_copy ? copy.data() : nullptr},
            stream().get());
        Updated want;
        for (std::size_t t = 0; t < layout.tensors.size(); ++t) {
            const auto [offset, size] = layout.tensors[t];
            for (std::size_t i = offset; i < offset + size; ++i) {
                add_element(step, factors[t], before.gradients[i], before.parameters[i], first[i],
                            before.moment2[i], before.average[i], want);
            }
        }
        const auto expect = [&](DeviceArray<float>& array, const std::vector<float>& old,
                                const std::vector<Bound>& bounds, bool changes, const char* name) {
            const std::vector<float> now = array.download();
            if (changes && is_taken) {
                expect_close(layout.packed(now), bounds, name);
                expect_same_bits(now, layout.padded(now), name);  // between tensors nothing moved
            } else {
                expect_same_bits(now, old, name);
            }
        };
        expect(gradients, before.gradients, {}, false, "gradients");
        expect(parameters, before.parameters, want.parameters, true, "parameters");
        expect(moment1, first, want.moment1, moments_of(rule) > 0, "moment1");
        expect(moment2, before.moment2, want.moment2, moments_of(rule) > 1, "moment2");
        expect(average, before.average, want.average, has_average, "average");
        const bool is_copied = has_copy && is_taken;
        expect_rounded(copy.download(), is_copied ? parameters.download() : other, "copy");
    }

    // One step of Adam from zero moments; moves four parameters from zero.
    std::vector<float> first_step(const std::vector<float>& gradient, const Step& step) {
        const Layout layout({gradient.size()});
        std::vector<float> arena(layout.arena_size, 0.0f);
        const std::vector<float> zeros = arena;
        std::copy(gradient.begin(), gradient.end(), arena.begin());
        DeviceArena device(stream(), layout);
        auto gradients = upload(arena);
        auto parameters = upload(zeros);
        auto m = upload(zeros);
        auto v = upload(zeros);
        auto scales = upload(std::vector<float>{1});
        auto word = upload(std::vector<unsigned>{1});
        auto state = upload(std::vector<StepState>{step});
        kernels::optimizer(step, state.data(), device.table(), scales.data(), word.data(),
                           {gradients.data(), parameters.data(), m.data(), v.data(), nullptr},
                           stream().get());
        std::vector<float> moved = parameters.download();
        moved.resize(gradient.size());
        return moved;
    }
};

TEST_F(OptimizerKernel, EveryRuleOnRaggedTensors) {
    const Layout layout(ragged_sizes());
    for (const UpdateRule rule : kRules) {
        for (const bool has_average : {false, true}) {
            for (const bool has_copy : {false, true}) {
                check(layout, rule, has_average, 0, true, has_copy);
            }
        }
    }
}

TEST_F(OptimizerKernel, EachSizeAloneAndUnaligned) {
    for (const std::size_t size : ragged_sizes()) {
        if (size == 0) continue;
        SCOPED_TRACE(size);
        for (const UpdateRule rule : kRules) check(Layout({size}), rule, true, size % 2);
    }
}

// The arena of 784-400-20, and pieces of more than four elements a thread.
TEST_F(OptimizerKernel, LargeSizes) {
    check(Layout({784 * 400, 400, 400 * 20, 20, 784 * 400 + 1}), UpdateRule::adam, true);
    check(Layout({8192 * 1024 + 5}), UpdateRule::adam, true);
}

TEST_F(OptimizerKernel, ASkippedStepChangesNoBit) {
    for (const UpdateRule rule : kRules) {
        check(Layout({1030, 7}), rule, true, 0, /*is_taken=*/false);
    }
}

TEST_F(OptimizerKernel, NothingIsNothing) {
    auto word = upload(std::vector<unsigned>{1});
    auto array = upload(std::vector<float>{1, 2});
    auto state = upload(std::vector<StepState>{step_of(UpdateRule::adam)});
    kernels::optimizer(step_of(UpdateRule::adam), state.data(), {}, array.data(), word.data(),
                       {array.data(), array.data(), array.data(), array.data(), array.data()},
                       stream().get());
    EXPECT_EQ(array.download(), (std::vector<float>{1, 2}));
}

// With no gradient behind it a parameter at zero stays there, to the bit.
TEST_F(OptimizerKernel, ZeroStaysZero) {
    const Layout layout({64});
    const std::vector<float> zeros(layout.arena_size, 0.0f);
    for (const UpdateRule rule : kRules) {
        DeviceArena device(stream(), layout);
        auto gradients = upload(zeros);
        auto parameters = upload(zeros);
        auto moment1 = upload(zeros);
        auto moment2 = upload(zeros);
        auto average = upload(zeros);
        auto scales = upload(std::vector<float>{1e7f});
        auto word = upload(std::vector<unsigned>{1});
        auto state = upload(std::vector<StepState>{step_of(rule)});
        kernels::optimizer(
            step_of(rule), state.data(), device.table(), scales.data(), word.data(),
            {gradients.data(), parameters.data(), moment1.data(), moment2.data(), average.data()},
            stream().get());
        for (DeviceArray<float>* array : {&parameters, &moment1, &moment2, &average}) {
            EXPECT_EQ(array->download(), zeros);
        }
    }
}

// The first step of Adam moves every parameter by the learning rate, whatever the gradient's size:
// the corrections undo the zero start (Kingma & Ba 2015, section 2.1). 1 − 0.999f instead of
// 1 − 0.999 would show here as 6e-6. A NaN comes through.
TEST_F(OptimizerKernel, AdamsFirstStepIsTheLearningRate) {
    Step step = {};
    step.step_size = static_cast<float>(1e-3 / (1 - step.beta1));
    step.inverse_sqrt_correction2 = static_cast<float>(1 / std::sqrt(1 - step.beta2));
    step.epsilon = 1e-30f;  // lost beside every root
    const std::vector<float> moved = first_step({1e-3f, -5, 1e6f, kNan}, step);
    EXPECT_NEAR(moved[0], -1e-3, 1e-3 * 16 * kEpsilon);
    EXPECT_NEAR(moved[1], 1e-3, 1e-3 * 16 * kEpsilon);
    EXPECT_NEAR(moved[2], -1e-3, 1e-3 * 16 * kEpsilon);
    EXPECT_TRUE(std::isnan(moved[3]));
}

TEST_F(OptimizerKernel, NanComesThroughEveryRule) {
    for (const UpdateRule rule : kRules) {
        Step step = step_of(rule);
        const std::vector<float> moved = first_step({1, kNan, 2, 3, kNan}, step);
        for (std::size_t i = 0; i < moved.size(); ++i) {
            EXPECT_EQ(std::isnan(moved[i]), i == 1 || i == 4) << i;
        }
    }
}

// Without epsilon a parameter that never had a gradient would become 0/0.
TEST_F(OptimizerKernel, WhatCannotBeIsRefused) {
    auto array = upload(std::vector<float>(8, 0.0f));
    auto word = upload(std::vector<unsigned>{1});
    float* const a = array.data();
    const auto refused = [&](const Step& step, const kernels::OptimizerArenas& arenas) {
        EXPECT_THROW(kernels::optimizer(step, nullptr, {}, a, word.data(), arenas, stream().get()),
                     std::invalid_argument);
    };
    for (const UpdateRule rule : {UpdateRule::adam, UpdateRule::adagrad}) {
        Step step = step_of(rule);
        for (const float epsilon : {0.0f, -1e-8f, kNan}) {
            step.epsilon = epsilon;
            refused(step, {a, a, a, a, nullptr});
        }
    }
    refused(step_of(UpdateRule::adam), {a, a, a, nullptr, nullptr});
    refused(step_of(UpdateRule::adam), {a, a, nullptr, a, nullptr});
    refused(step_of(UpdateRule::adagrad), {a, a, nullptr, nullptr, nullptr});
    refused(step_of(UpdateRule::momentum), {a, a, nullptr, nullptr, nullptr});
}

}  // namespace
}  // namespace vae::test
