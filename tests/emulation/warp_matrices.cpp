// The product of tiles that a warp holds in fragments.
#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "fragments.h"
#include "number_formats.h"
#include "warp.h"

namespace emulation {
namespace {

struct Tf32Factor {
    using Stored = float;
    static constexpr std::size_t kDepth = 8;
    static double value(float stored) { return cut_to_tf32(stored); }
};

struct Bf16Factor {
    using Stored = std::uint16_t;
    static constexpr std::size_t kDepth = 16;
    static double value(std::uint16_t stored) { return from_bf16(stored); }
};

struct Float {
    using Stored = float;
    static double value(float stored) { return stored; }
};

template <std::size_t kRows, std::size_t kColumns>
using Tile = std::array<std::array<double, kColumns>, kRows>;

// Puts the elements of a lane where they are in the tile.
template <class Format, std::size_t kRows, std::size_t kColumns>
void gather(const void* elements, unsigned run, Tile<kRows, kColumns>& tile) {
    constexpr std::size_t kEach = kRows * kColumns / kWarpSize;
    static_assert(kColumns % kEach == 0, "a run lies in one row");
    std::array<typename Format::Stored, kEach> own;
    std::memcpy(own.data(), elements, sizeof own);
    double* const to = &tile[run * kEach / kColumns][run * kEach % kColumns];
    for (std::size_t i = 0; i < kEach; ++i) to[i] = Format::value(own[i]);
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
void add_product(const Tile<kTileSide, kDepth>& a, const Tile<kDepth, kTileSide>& b,
                 Tile<kTileSide, kTileSide>& sum) {
    for (std::size_t i = 0; i < kTileSide; ++i) {
        for (std::size_t j = 0; j < kTileSide; j += kLanes) {
            Lanes total;
            std::memcpy(&total, &sum[i][j], sizeof total);
            for (std::size_t k = 0; k < kDepth; ++k) {
                Lanes row;
                std::memcpy(&row, &b[k][j], sizeof row);
                total += a[i][k] * row;
            }
            std::memcpy(&sum[i][j], &total, sizeof total);
        }
    }
}

template <class Factor>
void multiply(const Warp& warp) {
    Tile<kTileSide, Factor::kDepth> a;
    Tile<Factor::kDepth, kTileSide> b;
    Tile<kTileSide, kTileSide> sum;
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
        const WarpCall& call = warp.calls[lane];
        const auto& own = *from_bits<const MatrixFragments*>(call.value);
        gather<Factor>(own.a, run_of(lane, call.argument / kWarpSize), a);
        gather<Factor>(own.b, run_of(lane, call.argument % kWarpSize), b);
        gather<Float>(own.c, run_of(lane, kOrderOfSum), sum);
    }
    add_product<Factor::kDepth>(a, b, sum);
    constexpr unsigned kEach = kTileSide * kTileSide / kWarpSize;
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
        float* const result = from_bits<const MatrixFragments*>(warp.calls[lane].value)->d;
        const unsigned at = run_of(lane, kOrderOfSum) * kEach;
        const double* const from = &sum[at / kTileSide][at % kTileSide];
        for (unsigned i = 0; i < kEach; ++i) result[i] = toward_zero(from[i]);
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
