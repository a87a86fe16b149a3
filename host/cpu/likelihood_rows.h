// What every likelihood of this folder reads and writes. T is float or double.
#pragma once

#include <cstddef>

namespace vae::cpu {

// The decoder's output and the data. Row r of product is of example r / samples: the posterior
// samples of one example are neighbours.
template <class T>
struct LikelihoodInput {
    const T* product = nullptr;  // [rows, outputs], without the bias
    const T* bias = nullptr;     // [outputs]
    const T* x = nullptr;        // [rows / samples, pixels]
    std::size_t rows = 0;
    std::size_t pixels = 0;
    std::size_t samples = 1;

    const T* x_of(std::size_t row) const { return x + row / samples * pixels; }
};

// Of Σ_r scale·row_weight[r]·recon[r], recon[r] = −log p(x | row r).
template <class T>
struct LikelihoodGradient {
    double scale = 1;
    const T* row_weight = nullptr;  // [rows]; null: all 1
    T* d_product = nullptr;         // [rows, outputs]; may be product
    T* d_bias = nullptr;            // [outputs], its column sums
    T* partials = nullptr;          // [chunk_count(rows), outputs], overwritten

    T weight(std::size_t row) const {
        return static_cast<T>(scale) * (row_weight == nullptr ? T(1) : row_weight[row]);
    }
};

}  // namespace vae::cpu
