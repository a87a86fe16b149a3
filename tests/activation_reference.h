// The activations of kernels/activation.h in double, and what float arithmetic may lose of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kernels/activation.h"
#include "tests/kernel_reference.h"

namespace vae::test {

using kernels::Activation;

inline constexpr Activation kAllActivations[] = {
    Activation::relu, Activation::tanh, Activation::softplus, Activation::gelu, Activation::silu};
inline constexpr double kPi = 3.14159265358979323846;

inline double normal_cdf(double x) {
    return 0.5 * std::erfc(-x / std::sqrt(2.0));
}
inline double normal_density(double x) {
    return std::exp(-x * x / 2) / std::sqrt(2 * kPi);
}

// f(x) with what float arithmetic may lose: CUDA's functions are good to 1 to 4 units in the last
// place, each operation adds half a unit. In roundings (half units) of the value. The argument of
// erfc carries two roundings, which its condition number, about x² where it is small, multiplies.
inline Bound value_of(Activation f, double x) {
    const auto relative = [](double value, double roundings) {
        return Bound{value, roundings * kEpsilon * std::abs(value)};
    };
    switch (f) {
        case Activation::relu:
            return {std::max(x, 0.0), 0};
        case Activation::tanh:
            return relative(std::tanh(x), 5);
        case Activation::softplus:
            return relative(std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))), 10);
        case Activation::gelu:
            return relative(x * normal_cdf(x), 12 + (x < 0 ? 4 * x * x : 0));
        case Activation::silu:
            return relative(x * sigmoid(x), 10);
    }
    throw std::logic_error("unknown activation");
}

// f'(x) likewise; where terms cancel, in roundings of the terms.
inline Bound slope_of(Activation f, double x) {
    const double s = sigmoid(x);
    switch (f) {
        case Activation::relu:
            return {x > 0 ? 1.0 : 0.0, 0};
        case Activation::tanh: {
            const double t = std::tanh(x);
            return {1 - t * t, 12 * kEpsilon};
        }
        case Activation::softplus:
            return {s, 8 * kEpsilon * s};
        case Activation::gelu: {
            const double tail = normal_cdf(x) * (12 + (x < 0 ? 4 * x * x : 0));
            const double bell = std::abs(x) * normal_density(x) * (10 + 2 * x * x);
            return {normal_cdf(x) + x * normal_density(x), (tail + bell) * kEpsilon};
        }
        case Activation::silu:
            return {s * (1 + x * (1 - s)), 12 * kEpsilon * s * (1 + std::abs(x))};
    }
    throw std::logic_error("unknown activation");
}

}  // namespace vae::test
