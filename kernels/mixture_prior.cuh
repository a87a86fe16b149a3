// What the kernels of a mixture of Gaussians share: tiles in shared memory, and the components'
// parameters.
#pragma once

#include <cstddef>
#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/mixture_prior.h"
#include "kernels/reduce.cuh"
#include "kernels/shared_memory.cuh"
#include "kernels/tile_grid.h"

namespace vae::kernels {

inline constexpr unsigned kMixtureWarps = 8;
inline constexpr unsigned kMixtureThreads = kMixtureWarps * kWarpSize;
inline constexpr unsigned kMixtureTile = 32;  // rows, components or latent elements
// Of a tile's rows, a thread computes so many.
inline constexpr unsigned kEach = kMixtureTile / kMixtureWarps;
static_assert(kMixtureTile == kWarpSize, "a lane for each column of a tile");

// Elements of row k of a source.
__device__ inline float source_mean(const MixtureSource& source, unsigned k, unsigned j) {
    const float bias = source.mean_bias != nullptr ? source.mean_bias[j] : 0.0f;
    return source.mean[static_cast<std::size_t>(k) * source.row_stride + j] + bias;
}
__device__ inline float source_logvar(const MixtureSource& source, unsigned k, unsigned j) {
    const float bias = source.logvar_bias != nullptr ? source.logvar_bias[j] : 0.0f;
    return source.logvar[static_cast<std::size_t>(k) * source.row_stride + j] + bias;
}

// One more column, so that a column's elements lie in different banks.
using MixtureTile = float[kMixtureTile][kMixtureTile + 1];

// An array [rows, cols] of which tiles are read. Beyond its ends there are zeros.
struct TiledArray {
    const float* values;
    unsigned rows;
    unsigned cols;

    __device__ void load(unsigned first_row, unsigned first_col, MixtureTile& tile) const {
        const unsigned col = first_col + threadIdx.x % kWarpSize;
        for (unsigned i = threadIdx.x / kWarpSize; i < kMixtureTile; i += kMixtureWarps) {
            const unsigned row = first_row + i;
            const bool is_inside = row < rows && col < cols;
            tile[i][threadIdx.x % kWarpSize] =
                is_inside ? values[static_cast<std::size_t>(row) * cols + col] : 0.0f;
        }
    }
};

struct ComponentArrays {
    TiledArray mean;
    TiledArray inverse_sigma;
    TiledArray excess;
};

inline void require_mixture(const MixtureSource& source, const char* launcher) {
    require(source.components >= 1 && source.latent >= 0, launcher,
            "there must be a component, and latent must not be negative");
    require(source.row_stride >= source.latent, launcher,
            "row_stride must not be less than latent");
    require(source.logvar_min <= source.logvar_max, launcher,
            "logvar_min must not be greater than logvar_max");
}

inline unsigned checked_blocks(std::size_t blocks, const char* launcher) {
    require(blocks <= std::numeric_limits<int>::max(), launcher, "there are too many codes");
    return static_cast<unsigned>(blocks);
}

inline ComponentArrays arrays_of(const MixtureSource& source, const MixtureComponents& components) {
    const auto rows = static_cast<unsigned>(source.components);
    const auto cols = static_cast<unsigned>(source.latent);
    return {{components.mean, rows, cols},
            {components.inverse_sigma, rows, cols},
            {components.excess, rows, cols}};
}

}  // namespace vae::kernels
