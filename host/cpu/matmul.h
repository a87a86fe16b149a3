// Matrix products of row-major arrays, overwriting c. float: OpenBLAS. double: our own loops, each
// element a sum over k in ascending order whatever the number of threads, so that the oracle owes
// nothing to a library.
#pragma once

#include <cstddef>

namespace vae::cpu {

// c[m, n] = a[m, k] b[n, k]ᵀ
void matmul_nt(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
               float* c);
void matmul_nt(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
               double* c);

// c[m, n] = a[m, k] b[k, n]
void matmul_nn(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
               float* c);
void matmul_nn(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
               double* c);

// c[m, n] = a[k, m]ᵀ b[k, n]
void matmul_tn(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
               float* c);
void matmul_tn(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
               double* c);

}  // namespace vae::cpu
