// Arithmetic of the device that <cmath> does not have. The fast intrinsics, but for sine and cosine
// (device_functions.h), are computed as exactly as the library can: no kernel uses them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "device_functions.h"

// <cmath> keeps declarations of its own under some of CUDA's names, so these must be macros.
#define __expf(x) std::exp(static_cast<float>(x))
#define __exp10f(x) std::pow(10.0f, static_cast<float>(x))
#define __logf(x) std::log(static_cast<float>(x))
#define __log2f(x) std::log2(static_cast<float>(x))
#define __log10f(x) std::log10(static_cast<float>(x))
#define __powf(x, y) std::pow(static_cast<float>(x), static_cast<float>(y))
#define __tanf(x) std::tan(static_cast<float>(x))

#define __builtin_assume(condition) static_cast<void>(0)

namespace emulation {

// The value as it is: what the compiler makes of it does not see where it comes from. Kernels are
// compiled so that a product and a sum may become one operation; those of __fmul_rn may not.
template <class T>
inline T opaque(T value) {
    asm("" : "+x"(value));
    return value;
}

}  // namespace emulation

inline int min(int a, int b) {
    return std::min(a, b);
}
inline unsigned min(unsigned a, unsigned b) {
    return std::min(a, b);
}
inline long min(long a, long b) {
    return std::min(a, b);
}
inline unsigned long min(unsigned long a, unsigned long b) {
    return std::min(a, b);
}
inline long long min(long long a, long long b) {
    return std::min(a, b);
}
inline unsigned long long min(unsigned long long a, unsigned long long b) {
    return std::min(a, b);
}
inline float min(float a, float b) {
    return std::fmin(a, b);
}
inline double min(double a, double b) {
    return std::fmin(a, b);
}
inline int max(int a, int b) {
    return std::max(a, b);
}
inline unsigned max(unsigned a, unsigned b) {
    return std::max(a, b);
}
inline long max(long a, long b) {
    return std::max(a, b);
}
inline unsigned long max(unsigned long a, unsigned long b) {
    return std::max(a, b);
}
inline long long max(long long a, long long b) {
    return std::max(a, b);
}
inline unsigned long long max(unsigned long long a, unsigned long long b) {
    return std::max(a, b);
}
inline float max(float a, float b) {
    return std::fmax(a, b);
}
inline double max(double a, double b) {
    return std::fmax(a, b);
}

inline float rsqrtf(float x) {
    return 1.0f / std::sqrt(x);
}
inline double rsqrt(double x) {
    return 1.0 / std::sqrt(x);
}
inline float normcdff(float x) {
    return 0.5f * std::erfc(-x * 0.70710678f);
}
inline double normcdf(double x) {
    return 0.5 * std::erfc(-x * 0.70710678118654752);
}

// Rounded to nearest once; the compiler may not contract them.
inline float __fadd_rn(float a, float b) {
    return emulation::opaque(a) + emulation::opaque(b);
}
inline float __fsub_rn(float a, float b) {
    return emulation::opaque(a) - emulation::opaque(b);
}
inline float __fmul_rn(float a, float b) {
    return emulation::opaque(a * b);
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
    return std::fma(a, b, c);
}
inline float __frcp_rn(float x) {
    return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
    return std::sqrt(x);
}
inline float __frsqrt_rn(float x) {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x)));
}
inline double __dadd_rn(double a, double b) {
    return emulation::opaque(a) + emulation::opaque(b);
}
inline double __dsub_rn(double a, double b) {
    return emulation::opaque(a) - emulation::opaque(b);
}
inline double __dmul_rn(double a, double b) {
    return emulation::opaque(a * b);
}
inline double __ddiv_rn(double a, double b) {
    return a / b;
}
inline double __fma_rn(double a, double b, double c) {
    return std::fma(a, b, c);
}
inline double __dsqrt_rn(double x) {
    return std::sqrt(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __saturatef(float x) {
    return std::fmin(std::fmax(x, 0.0f), 1.0f);
}

inline int __float_as_int(float x) {
    return std::bit_cast<int>(x);
}
inline unsigned __float_as_uint(float x) {
    return std::bit_cast<unsigned>(x);
}
inline float __int_as_float(int x) {
    return std::bit_cast<float>(x);
}
inline float __uint_as_float(unsigned x) {
    return std::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x) {
    return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
    return std::bit_cast<double>(x);
}
inline int __float2int_rn(float x) {
    return static_cast<int>(std::nearbyint(x));
}
inline int __float2int_rz(float x) {
    return static_cast<int>(x);
}
inline int __float2int_rd(float x) {
    return static_cast<int>(std::floor(x));
}
inline int __float2int_ru(float x) {
    return static_cast<int>(std::ceil(x));
}
inline unsigned __float2uint_rn(float x) {
    return static_cast<unsigned>(std::nearbyint(x));
}
inline unsigned __float2uint_rz(float x) {
    return static_cast<unsigned>(x);
}
inline float __int2float_rn(int x) {
    return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned x) {
    return static_cast<float>(x);
}
inline float __double2float_rn(double x) {
    return static_cast<float>(x);
}

inline int __popc(unsigned x) {
    return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
    return std::popcount(x);
}
inline int __clz(int x) {
    return std::countl_zero(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
    return std::countl_zero(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= ((x >> bit) & 1u) << (31 - bit);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) {
    return static_cast<int>((static_cast<std::int64_t>(a) * b) >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    const std::uint64_t both = (static_cast<std::uint64_t>(high) << 32) | low;
    return static_cast<unsigned>((both << (shift & 31u)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    const std::uint64_t both = (static_cast<std::uint64_t>(high) << 32) | low;
    return static_cast<unsigned>(both >> (shift & 31u));
}
