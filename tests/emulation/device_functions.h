// Functions of the device that round otherwise than the host's library: those of floats that
// kernels call, whose results CUDA's manual allows to be some units in the last place from the one
// correctly rounded, and sine and cosine of the special function unit. Those of doubles are good to
// a unit or two of theirs, which no float shows: they are the library's.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "random.h"
#include "rounding.h"

namespace emulation {

// A function's result, moved as function_rounding says by up to `units` in the last place.
inline float moved(float value, float argument, int units) {
    // Where it is a number of full precision, and no exact one: e^0, log 1.
    if (!(std::abs(value) >= std::numeric_limits<float>::min()) || std::isinf(value)) return value;
    if (argument == 0) return value;
    const auto bits = std::bit_cast<std::uint32_t>(value);
    int by = function_rounding.kind == Rounding::up ? units : -units;
    if (function_rounding.kind == Rounding::random) {
        const std::uint64_t call =
            std::uint64_t{std::bit_cast<std::uint32_t>(argument)} << 32 | bits;
        const auto choices = static_cast<std::uint64_t>(2 * units + 1);
        by += static_cast<int>(Random{function_rounding.seed ^ call}.below(choices));
    }
    return std::bit_cast<float>(bits + static_cast<std::uint32_t>(value > 0 ? by : -by));
}

template <class Function>
inline float on_device(Function function, float x, int units) {
    if (function_rounding.kind == Rounding::host) return function(x);
    return moved(static_cast<float>(function(static_cast<double>(x))), x, units);
}

// The units are those of the tables "Mathematical Functions" of CUDA's programming guide; no
// function leaves its range.
inline float expf_of(float x) {
    return on_device([](auto v) { return std::exp(v); }, x, 2);
}
inline float expm1f_of(float x) {
    return std::max(on_device([](auto v) { return std::expm1(v); }, x, 1), -1.0f);
}
inline float logf_of(float x) {
    return on_device([](auto v) { return std::log(v); }, x, 1);
}
inline float log1pf_of(float x) {
    return on_device([](auto v) { return std::log1p(v); }, x, 1);
}
inline float tanhf_of(float x) {
    return std::clamp(on_device([](auto v) { return std::tanh(v); }, x, 2), -1.0f, 1.0f);
}
inline float erfcf_of(float x) {
    return std::min(on_device([](auto v) { return std::erfc(v); }, x, 4), 2.0f);
}

// What the special function unit is given for an angle: turns, from a product with 1/2π in float
// that is cut and not rounded. Angles of a turn and less, as cuRAND has them.
inline double fast_angle(float x) {
    constexpr double kTurnsOfAngle = 0.15915494f;
    constexpr double kTwoPi = 6.283185307179586;
    const double exact = x * kTurnsOfAngle;
    auto turns = static_cast<float>(exact);
    if (std::abs(turns) > std::abs(exact)) turns = std::nextafter(turns, 0.0f);
    return turns * kTwoPi;
}

// The unit's own error, which is taken to be any up to 2^-22 of the result: with the angle's it is
// 2^-20.5 in [-2π, 2π], what the manual of PTX allows.
inline float fast_result(double exact) {
    Random noise{std::bit_cast<std::uint64_t>(exact) ^ function_rounding.seed};
    const double unit = static_cast<double>(noise.next()) * 0x1p-63 - 1;
    return static_cast<float>(exact + exact * unit * 0x1p-22);
}
inline float fast_sin(float x) {
    return fast_result(std::sin(fast_angle(x)));
}
inline float fast_cos(float x) {
    return fast_result(std::cos(fast_angle(x)));
}
inline void fast_sincos(float x, float* sine, float* cosine) {
    *sine = fast_sin(x);
    *cosine = fast_cos(x);
}

}  // namespace emulation

// <cmath> declares these names, so they must be macros.
#define expf(x) ::emulation::expf_of(x)
#define expm1f(x) ::emulation::expm1f_of(x)
#define logf(x) ::emulation::logf_of(x)
#define log1pf(x) ::emulation::log1pf_of(x)
#define tanhf(x) ::emulation::tanhf_of(x)
#define erfcf(x) ::emulation::erfcf_of(x)
#define __sinf(x) ::emulation::fast_sin(x)
#define __cosf(x) ::emulation::fast_cos(x)
#define __sincosf(x, sine, cosine) ::emulation::fast_sincos(x, sine, cosine)
