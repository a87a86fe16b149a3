// What every likelihood kernel reads and writes.
#pragma once

#include "kernels/reals.h"

namespace vae::kernels {

// The decoder's output and the data. Row r of product is of example r / samples: the posterior
// samples of one example are neighbours. How many outputs there are for a pixel, and in what order,
// is the likelihood's own.
struct LikelihoodInput {
    const float* product = nullptr;  // [rows, outputs], without the bias
    const float* bias = nullptr;     // [outputs]
    const float* x = nullptr;        // [rows / samples, pixels]
    int rows = 0;                    // a multiple of samples
    int pixels = 0;
    int samples = 1;
};

// Of Σ_r scale·row_weight[r]·recon[r], recon[r] = −log p(x | row r). Column sums are of d_product
// before it is rounded to bf16.
struct LikelihoodGradient {
    float scale = 1;
    const float* row_weight = nullptr;  // [rows] on the device; null: all 1
    Reals d_product;                    // [rows, outputs]; may be product (not if bf16)
    float* d_bias = nullptr;            // [outputs], its column sums
};

}  // namespace vae::kernels
