// The product of matrices that a warp holds in the registers of its lanes.
#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "number_formats.h"
#include "warp.h"

namespace emulation {
namespace {

constexpr std::size_t kRows = 16;
constexpr std::size_t kColumns = 8;

template <std::size_t kDepth>
struct Tiles {
    std::array<std::array<double, kDepth>, kRows> a;
    std::array<std::array<double, kColumns>, kDepth> b;
    std::array<std::array<double, kColumns>, kRows> sum;
};

// Which elements the registers of a lane have: see kernels/tensor_cores.cuh.
struct Tf32Factor {
    static constexpr std::size_t kDepth = 8;

    // Calls action(place in depth, value) for what register j of a row or column has.
    template <class Action>
    static void for_each(unsigned bits, std::size_t in_group, std::size_t j, const Action& action) {
        action(in_group + 4 * j, cut_to_tf32(std::bit_cast<float>(bits)));
    }
};

struct Bf16Factor {
    static constexpr std::size_t kDepth = 16;

    template <class Action>
    static void for_each(unsigned bits, std::size_t in_group, std::size_t j, const Action& action) {
        action(2 * in_group + 8 * j, from_bf16(static_cast<std::uint16_t>(bits)));
        action(2 * in_group + 8 * j + 1, from_bf16(static_cast<std::uint16_t>(bits >> 16)));
    }
};

const MatrixFragments& fragments_of(const Warp& warp, std::size_t lane) {
    return *from_bits<const MatrixFragments*>(warp.calls[lane].value);
}

template <class Factor>
void gather(const Warp& warp, Tiles<Factor::kDepth>& tiles) {
    for (std::size_t lane = 0; lane < kWarpSize; ++lane) {
        const MatrixFragments& own = fragments_of(warp, lane);
        const std::size_t group = lane / 4;
        const std::size_t in_group = lane % 4;
        for (std::size_t j = 0; j < 2; ++j) {
            for (std::size_t i = 0; i < 2; ++i) {
                auto& row = tiles.a[group + 8 * i];
                Factor::for_each(own.a[2 * j + i], in_group, j,
                                 [&](std::size_t k, double value) { row[k] = value; });
                tiles.sum[group + 8 * i][2 * in_group + j] = own.sum[2 * i + j];
            }
            Factor::for_each(own.b[j], in_group, j,
                             [&](std::size_t k, double value) { tiles.b[k][group] = value; });
        }
    }
}

// To float; infinite only where no exponent is left. In bits, for GCC 12 vectorizes a comparison
// with what is nearest wrongly. A NaN has its highest bit, and so stays one.
float toward_zero(double value) {
    if (std::abs(value) < std::numeric_limits<float>::min()) {
        return static_cast<float>(std::trunc(value * 0x1p149) * 0x1p-149);
    }
    constexpr std::uint64_t kBeyondFloat = (std::uint64_t{1} << 29) - 1;
    return static_cast<float>(
        std::bit_cast<double>(std::bit_cast<std::uint64_t>(value) & ~kBeyondFloat));
}

// What the processor adds at once; GCC by itself finds a slower way.
constexpr std::size_t kLanes = 4;
using Lanes = double __attribute__((vector_size(kLanes * sizeof(double))));

template <std::size_t kDepth>
void add_product(Tiles<kDepth>& tiles) {
    for (std::size_t i = 0; i < kRows; ++i) {
        for (std::size_t j = 0; j < kColumns; j += kLanes) {
            Lanes total;
            std::memcpy(&total, &tiles.sum[i][j], sizeof total);
            for (std::size_t k = 0; k < kDepth; ++k) {
                Lanes row;
                std::memcpy(&row, &tiles.b[k][j], sizeof row);
                total += tiles.a[i][k] * row;
            }
            std::memcpy(&tiles.sum[i][j], &total, sizeof total);
        }
    }
}

template <class Factor>
void multiply(const Warp& warp) {
    Tiles<Factor::kDepth> tiles;
    gather<Factor>(warp, tiles);
    add_product(tiles);
    for (std::size_t lane = 0; lane < kWarpSize; ++lane) {
        float* const sum = fragments_of(warp, lane).sum;
        for (std::size_t i = 0; i < 2; ++i) {
            for (std::size_t j = 0; j < 2; ++j) {
                sum[2 * i + j] = toward_zero(tiles.sum[lane / 4 + 8 * i][lane % 4 * 2 + j]);
            }
        }
    }
}

}  // namespace

void multiply_matrices(const Warp& warp) {
    if (warp.calls[0].operation == WarpOperation::multiply_bf16) {
        multiply<Bf16Factor>(warp);
    } else {
        multiply<Tf32Factor>(warp);
    }
}

}  // namespace emulation
