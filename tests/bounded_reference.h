// A learned log-variance or log-scale in double, and how far the kernels' float may be from it.
#pragma once

#include <cmath>

#include "tests/kernel_reference.h"

namespace vae::test {

struct BoundedReference {
    BoundedReference(double raw, double least, double most) {
        const auto softplus = [](double a) {
            return std::max(a, 0.0) + std::log1p(std::exp(-std::abs(a)));
        };
        const double u = most - softplus(most - raw);
        value = least + softplus(u - least);
        slope = sigmoid(most - raw) * sigmoid(u - least);
        // Two sums, each rounded once, of numbers no larger than the value or, at a bound, the
        // bound; two log1p, below log 2 each, with the error of their arguments, at most 10
        // roundings together.
        error = kEpsilon * (10 + 3 * std::abs(value));
        // Two exponentials with the error of their arguments, and 16 roundings.
        slope_error =
            kEpsilon * (16 + std::abs(most - raw) + 2 * std::abs(u - least) + std::abs(u));
    }

    double value = 0;
    double slope = 0;        // d value / d raw
    double error = 0;        // of value, absolute
    double slope_error = 0;  // of slope, relative
};

}  // namespace vae::test
