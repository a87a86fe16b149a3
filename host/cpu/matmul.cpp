#include "host/cpu/matmul.h"

#include <cblas.h>

#include <algorithm>

namespace vae::cpu {
namespace {

// Dimensions fit: the layout keeps every tensor below 2^31 elements.
void gemm(CBLAS_TRANSPOSE transpose_a, CBLAS_TRANSPOSE transpose_b, const float* a, std::size_t lda,
          const float* b, std::size_t ldb, std::size_t m, std::size_t n, std::size_t k, float* c) {
    if (m == 0 || n == 0) return;
    cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, static_cast<blasint>(m),
                static_cast<blasint>(n), static_cast<blasint>(k), 1.0F, a,
                static_cast<blasint>(lda), b, static_cast<blasint>(ldb), 0.0F, c,
                static_cast<blasint>(n));
}

constexpr std::size_t kParallelProducts = 100'000;  // fewer are not worth waking other threads for
constexpr std::size_t kColumns = 256;  // of c held in the first-level cache: 2 KiB a row

// Rows of c one after the other, a stripe of columns at a time: the compiler vectorises across
// columns, where the order of each element's sum is untouched. coefficient(i, l) is a's element.
template <class Coefficient>
void accumulate_rows(const double* b, std::size_t m, std::size_t n, std::size_t k, double* c,
                     Coefficient coefficient) {
    constexpr std::size_t kRows = 4;  // that share each load of b
#pragma omp parallel for schedule(static) if (m * n * k >= kParallelProducts)
    for (std::size_t i0 = 0; i0 < m; i0 += kRows) {
        const std::size_t rows = std::min(kRows, m - i0);
        for (std::size_t j0 = 0; j0 < n; j0 += kColumns) {
            const std::size_t width = std::min(kColumns, n - j0);
            double sums[kRows][kColumns] = {};
            for (std::size_t l = 0; l < k; ++l) {
                const double* b_row = b + l * n + j0;
                for (std::size_t i = 0; i < rows; ++i) {
                    const double factor = coefficient(i0 + i, l);
                    for (std::size_t j = 0; j < width; ++j) sums[i][j] += factor * b_row[j];
                }
            }
            for (std::size_t i = 0; i < rows; ++i) {
                std::copy_n(sums[i], width, c + (i0 + i) * n + j0);
            }
        }
    }
}

// N dot products of one row of a with rows of b, side by side to hide the latency of each sum.
template <std::size_t N>
void dot_products(const double* a, const double* b, std::size_t k, double* c) {
    double sums[N] = {};
    for (std::size_t l = 0; l < k; ++l) {
        for (std::size_t j = 0; j < N; ++j) sums[j] += a[l] * b[j * k + l];
    }
    std::copy_n(sums, N, c);
}

}  // namespace

void matmul_nt(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
               float* c) {
    gemm(CblasNoTrans, CblasTrans, a, k, b, k, m, n, k, c);
}

void matmul_nn(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
               float* c) {
    gemm(CblasNoTrans, CblasNoTrans, a, k, b, n, m, n, k, c);
}

void matmul_tn(const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
               float* c) {
    gemm(CblasTrans, CblasNoTrans, a, m, b, n, m, n, k, c);
}

void matmul_nt(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
               double* c) {
    constexpr std::size_t kTogether = 8;
#pragma omp parallel for schedule(static) if (m * n * k >= kParallelProducts)
    for (std::size_t i = 0; i < m; ++i) {
        std::size_t j = 0;
        for (; j + kTogether <= n; j += kTogether) {
            dot_products<kTogether>(a + i * k, b + j * k, k, c + i * n + j);
        }
        for (; j < n; ++j) dot_products<1>(a + i * k, b + j * k, k, c + i * n + j);
    }
}

void matmul_nn(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
               double* c) {
    accumulate_rows(b, m, n, k, c, [=](std::size_t i, std::size_t l) { return a[i * k + l]; });
}

void matmul_tn(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k,
               double* c) {
    accumulate_rows(b, m, n, k, c, [=](std::size_t i, std::size_t l) { return a[l * m + i]; });
}

}  // namespace vae::cpu
