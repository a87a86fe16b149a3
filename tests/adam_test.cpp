#include "kernels/adam.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

kernels::AdamStep step_at(int t, double learning_rate) {
    kernels::AdamStep step;
    step.step_size = static_cast<float>(learning_rate / (1 - std::pow(step.beta1, t)));
    step.inverse_sqrt_correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(step.beta2, t)));
    return step;
}

struct State {
    explicit State(std::size_t size)
        : gradients(random_normals(size, 1)),
          parameters(random_normals(size, 2)),
          m(random_normals(size, 3, 0.1f)),
          v(random_uniforms(size, 4)) {}

    std::vector<float> gradients, parameters, m, v;
};

class Adam : public KernelTest {
  protected:
    void check(std::size_t size, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << size << " elements, shift " << shift);
        const State before(size);
        const kernels::AdamStep step = step_at(3, 1e-3);
        auto gradients = upload(before.gradients, shift);
        auto parameters = upload(before.parameters, shift);
        auto m = upload(before.m, shift);
        auto v = upload(before.v, shift);
        kernels::adam(step, gradients.data(), size, parameters.data(), m.data(), v.data(),
                      stream().get());

        std::vector<Bound> want_p, want_m, want_v;
        for (std::size_t i = 0; i < size; ++i) {
            // Coefficients, two products and a sum.
            const double g = before.gradients[i];
            Sum next_m, next_v;
            next_m.add(step.beta1 * before.m[i]);
            next_m.add((1 - step.beta1) * g);
            next_v.add(step.beta2 * before.v[i]);
            next_v.add((1 - step.beta2) * g * g);
            want_m.push_back(next_m.within(3));
            want_v.push_back(next_v.within(4));
            // The update inherits those errors (half of v's, by the root) and adds two products,
            // a root, a sum and a quotient; the subtraction rounds once more.
            const double denominator =
                std::sqrt(next_v.value) * step.inverse_sqrt_correction2 + step.epsilon;
            const double scale = step.step_size / denominator;
            const double p = before.parameters[i] - scale * next_m.value;
            want_p.push_back({p, kEpsilon * (std::abs(p) + scale * (3 * next_m.magnitude +
                                                                    8 * std::abs(next_m.value)))});
        }
        expect_close(m.download(), want_m, "m");
        expect_close(v.download(), want_v, "v");
        expect_close(parameters.download(), want_p, "parameters");
        expect_close(gradients.download(),
                     each({1, static_cast<int>(size)},
                          [&](auto, auto i) {
                              return Bound{before.gradients[i], 0};
                          }),
                     "gradients");
    }
};

TEST_F(Adam, EveryRaggedSize) {
    for (const std::size_t size : {0, 1, 3, 4, 31, 32, 33, 101, 1023, 1024, 1025, 1028, 65537}) {
        check(size);
    }
}

// The arena of 784-400-20, and around it.
TEST_F(Adam, LargeSizes) {
    for (const std::size_t size : {652863, 652864, 652865}) check(size);
}

TEST_F(Adam, UnalignedArrays) {
    check(131, 1);
}

// With no gradient behind it a parameter stays, to the bit: padding of the arena stays zero.
TEST_F(Adam, PaddingStaysZero) {
    const std::vector<float> zeros(64, 0.0f);
    auto gradients = upload(zeros);
    auto parameters = upload(zeros);
    auto m = upload(zeros);
    auto v = upload(zeros);
    kernels::adam(step_at(1, 1e-3), gradients.data(), 64, parameters.data(), m.data(), v.data(),
                  stream().get());
    expect_same_bits(parameters.download(), zeros, "parameters");
    expect_same_bits(m.download(), zeros, "m");
    expect_same_bits(v.download(), zeros, "v");
}

// The first step moves every parameter by the learning rate, whatever the gradient's size: the
// corrections undo the zero start (Kingma & Ba 2015, section 2.1). 1 − 0.999f instead of
// 1 − 0.999 would show here as 6e-6.
TEST_F(Adam, FirstStepIsTheLearningRate) {
    auto gradients = upload(std::vector<float>{1e-3f, -5, 1e6f, kNan});
    auto parameters = upload(std::vector<float>(4, 0.0f));
    auto m = upload(std::vector<float>(4, 0.0f));
    auto v = upload(std::vector<float>(4, 0.0f));
    kernels::AdamStep step = step_at(1, 1e-3);
    step.epsilon = 1e-30f;  // lost beside every root
    kernels::adam(step, gradients.data(), 4, parameters.data(), m.data(), v.data(), stream().get());
    const std::vector<float> moved = parameters.download();
    EXPECT_NEAR(moved[0], -1e-3, 1e-3 * 16 * kEpsilon);
    EXPECT_NEAR(moved[1], 1e-3, 1e-3 * 16 * kEpsilon);
    EXPECT_NEAR(moved[2], -1e-3, 1e-3 * 16 * kEpsilon);
    EXPECT_TRUE(std::isnan(moved[3]));
}

// Without epsilon a parameter that never had a gradient, padding among them, would become 0/0.
TEST_F(Adam, EpsilonMustBePositive) {
    const std::vector<float> zeros(8, 0.0f);
    auto array = upload(zeros);
    kernels::AdamStep step = step_at(1, 1e-3);
    for (const float epsilon : {0.0f, -1e-8f, kNan}) {
        step.epsilon = epsilon;
        EXPECT_THROW(kernels::adam(step, array.data(), 8, array.data(), array.data(), array.data(),
                                   stream().get()),
                     std::invalid_argument)
            << epsilon;
    }
    EXPECT_EQ(array.download(), zeros);
}

}  // namespace
}  // namespace vae::test
