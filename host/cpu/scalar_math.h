// Functions of one number that several operations share, safe for any argument. NaN gives NaN.
#pragma once

#include <cmath>
#include <numbers>

#include "host/cpu/vector_math.h"

namespace vae::cpu {

// max(a, 0). Written so that NaN passes.
template <class T>
VAE_CPU_INLINE T positive_part(T a) {
    return a < 0 ? T(0) : a;
}

// log(1 + exp(−|a|)), so that log(1 + e^a) = positive_part(a) + this without overflow.
template <class T>
VAE_CPU_INLINE T log1p_exp_minus_abs(T a) {
    return std::log1p(std::exp(-std::abs(a)));
}

// 1 / (1 + e^−a) without overflow.
template <class T>
VAE_CPU_INLINE T sigmoid(T a) {
    const T t = std::exp(-std::abs(a));
    return (a < 0 ? t : T(1)) / (1 + t);
}

// raw bounded smoothly on both sides: least + softplus(u − least), u = most − softplus(most − raw),
// and its derivative. Written so that a value well inside keeps its own relative accuracy.
template <class T>
VAE_CPU_INLINE T bounded(T raw, T least, T most, T& slope) {
    const T room = most - raw;
    const T u = (room < 0 ? most : raw) - log1p_exp_minus_abs(room);
    const T excess = u - least;
    slope = sigmoid(room) * sigmoid(excess);
    return (excess < 0 ? least : u) + log1p_exp_minus_abs(excess);
}

// Φ(a) of the standard normal. By erfc: 1 + erf would cancel for negative a.
template <class T>
VAE_CPU_INLINE T normal_cdf(T a) {
    return std::erfc(-a / std::numbers::sqrt2_v<T>) / 2;
}

}  // namespace vae::cpu
