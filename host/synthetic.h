// Small data sets with a known distribution, for tests and first experiments. Each has 6000
// training and 1000 test examples, made from noise addressed by (seed 0, synthetic_data), so they
// are the same everywhere.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "host/dataset.h"

namespace vae {

// x = W z + b + sigma·n with z ~ N(0, I) and n ~ N(0, I): a linear Gaussian model, whose evidence
// is p(x) = N(b, W W^T + sigma²I).
struct LinearGaussian {
    std::size_t pixels = 8;
    std::size_t latent = 2;
    std::vector<double> weight;  // [pixels, latent], standard normals
    std::vector<double> bias;    // [pixels], standard normals
    double sigma = 0.5;
};

// The model that synthetic:linear-gaussian is drawn from. W, then b, are the normals at step 0,
// example 0; z, then n, of example i are those at step 1, example i.
LinearGaussian linear_gaussian_model();

// Training and test examples of synthetic:NAME; InputError when there is no set of this name.
//   linear-gaussian  8 floats, not in [0,1]: for the Gaussian likelihood
//   bars             8×8 bytes, 0 or 255: each of 8 rows and 8 columns is all on with probability
//                    1/8, independently (uniform of element 0…7 for rows, 8…15 for columns, at step
//                    2, example i, at most 1/8); a pixel is on when its row or its column is
struct SyntheticSet {
    Dataset train;
    Dataset test;
};
SyntheticSet synthetic_set(const std::string& name);

}  // namespace vae
