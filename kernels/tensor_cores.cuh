// The matrix instructions of tensor cores, for compute capability 8.0 and newer; elsewhere they
// trap. By all lanes of a warp together: sum[16, 8] += a[16, depth]·b[depth, 8]. Each lane holds 4
// elements of sum, 4 registers of a and 2 of b; PTX ISA, "Matrix fragments for mma.m16n8k8" and
// ".m16n8k16", says which, with g = lane / 4 and t = lane % 4:
//
//           sum        sum[2i + j] at (g + 8i, 2t + j)
//   TF32    depth 8    a[2j + i] at (g + 8i, t + 4j),  b[j] at (t + 4j, g)
//   bf16    depth 16   likewise of two elements that are neighbours in depth, the first below:
//                      a[2j + i] from (g + 8i, 2t + 8j) on, b[j] from (2t + 8j, g) on
#pragma once

#include <cuda_runtime.h>

namespace vae::kernels {

// What TF32 holds of a float: rounded to nearest, ties away from zero, to 10 bits of mantissa.
__device__ inline unsigned rounded_to_tf32(float value) {
    unsigned result = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    __trap();
#else
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
#endif
    return result;
}

__device__ inline void multiply_tf32(const unsigned (&a)[4], const unsigned (&b)[2],
                                     float (&sum)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    __trap();
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ inline void multiply_bf16(const unsigned (&a)[4], const unsigned (&b)[2],
                                     float (&sum)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    __trap();
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace vae::kernels
