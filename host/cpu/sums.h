// Sums with a fixed order, whatever the number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "host/cpu/chunks.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {

// Smaller arrays are not worth waking other threads for: some 10 µs of work.
inline constexpr std::size_t kParallelElements = 16384;

// Σ term(c) for c in [0, n). float: vector lanes within 512 terms, double across them. double: one
// after the other. term may store through c, for a pass that computes a sum and an array.
template <class T, class Term>
VAE_CPU_INLINE T row_sum(std::size_t n, Term term) {
    if constexpr (std::is_same_v<T, float>) {
        constexpr std::size_t kTile = 512;
        double total = 0;
        for (std::size_t begin = 0; begin < n; begin += kTile) {
            const std::size_t end = std::min(n, begin + kTile);
            float lanes = 0;
#pragma omp simd reduction(+ : lanes)
            for (std::size_t c = begin; c < end; ++c) lanes += term(c);
            total += static_cast<double>(lanes);
        }
        return static_cast<float>(total);
    } else {
        T total = 0;
        for (std::size_t c = 0; c < n; ++c) total += term(c);
        return total;
    }
}

// sums[c] = Σ over chunks of partials[chunk·stride + c] for c in [0, cols), in double.
template <class T>
void add_chunks(const T* partials, std::size_t chunks, std::size_t stride, std::size_t cols,
                T* sums) {
    constexpr std::size_t kStripe = 64;
#pragma omp parallel for schedule(static) if (chunks * cols >= kParallelElements)
    for (std::size_t begin = 0; begin < cols; begin += kStripe) {
        const std::size_t width = std::min(kStripe, cols - begin);
        double total[kStripe] = {};
        for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
            const T* row = partials + chunk * stride + begin;
            for (std::size_t c = 0; c < width; ++c) total[c] += static_cast<double>(row[c]);
        }
        for (std::size_t c = 0; c < width; ++c) sums[begin + c] = static_cast<T>(total[c]);
    }
}

// Calls work(chunk, first_row, last_row) for each chunk of rows, over all threads.
template <class Work>
void for_each_chunk(std::size_t rows, std::size_t cols, Work work) {
    const std::size_t chunks = chunk_count(rows);
#pragma omp parallel for schedule(static) if (rows * cols >= kParallelElements)
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
        work(chunk, chunk * kChunkRows, std::min(rows, (chunk + 1) * kChunkRows));
    }
}

}  // namespace vae::cpu
