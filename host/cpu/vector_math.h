// What lets the compiler vectorise loops over exp, log1p, … in float: glibc's libmvec (error at
// most 4 ulp over the whole range; NaN and infinity as the scalar function), and one clone of a
// loop for each kind of x86-64, chosen when the program starts.
//
// A loop is written once as an inline template. Its float instantiation is called from a function
// marked VAE_CPU_CLONES; the double one from a plain function, so the oracle stays strict.
#pragma once

#include <cmath>

// VAE_CPU_PLAIN (set for sanitized builds): clones are chosen before a sanitizer is ready.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(VAE_CPU_PLAIN)
#if __GLIBC_PREREQ(2, 35) && __GNUC__ >= 12
#define VAE_CPU_VECTOR 1
#endif
#endif

#ifdef VAE_CPU_VECTOR
#define VAE_CPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
// Redeclared with the promise that a vector version exists in libmvec.
extern "C" {
__attribute__((simd("notinbranch"))) float expf(float) noexcept;
__attribute__((simd("notinbranch"))) float expm1f(float) noexcept;
__attribute__((simd("notinbranch"))) float log1pf(float) noexcept;
__attribute__((simd("notinbranch"))) float logf(float) noexcept;
__attribute__((simd("notinbranch"))) float tanhf(float) noexcept;
__attribute__((simd("notinbranch"))) float erfcf(float) noexcept;
}
#else
#define VAE_CPU_CLONES
#endif

// A body must end up inside the clone that calls it.
#define VAE_CPU_INLINE inline __attribute__((always_inline))
