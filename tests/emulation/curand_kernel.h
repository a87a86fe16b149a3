// Found before the real header of this name, which declares blockDim and threadIdx for hosts, with
// a linkage that is not that of our variables; and which takes a host's sine and cosine, while on a
// device it takes the fast ones.
#pragma once
#pragma GCC system_header  // #include_next is an extension of the compiler

#ifndef QUALIFIERS
#define QUALIFIERS static inline __host__ __device__
#endif

#include <cuda_runtime.h>

#define blockDim blockDim_of_curand
#define threadIdx threadIdx_of_curand
#define sinf(x) __sinf(x)
#define cosf(x) __cosf(x)
#include_next <curand_kernel.h>
#undef sinf
#undef cosf
#undef blockDim
#undef threadIdx
