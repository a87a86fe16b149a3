// Means of samples and how sure they are.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

namespace vae {

inline double mean_of(std::span<const double> values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

// Unbiased; NaN of fewer than two values.
inline double variance_of(std::span<const double> values) {
    const double mean = mean_of(values);
    double squares = 0;
    for (const double value : values) squares += (value - mean) * (value - mean);
    return squares / (static_cast<double>(values.size()) - 1);
}

// Standard error of mean_of.
inline double error_of_mean(std::span<const double> values) {
    return std::sqrt(variance_of(values) / static_cast<double>(values.size()));
}

}  // namespace vae
