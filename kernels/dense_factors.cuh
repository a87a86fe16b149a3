// A warp's factors and sums of a product on tensor cores, by what the factors are.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstring>
#include <type_traits>

#include "kernels/reduce.cuh"
#include "kernels/tensor_cores.cuh"

namespace vae::kernels {

// How a tile of factors lies in memory: [outer][depth] or [depth][outer], where the sum of a
// product goes over depth, and outer is the row or column of its result.
enum class Order { outer_major, depth_major };

// two_tf32: floats as what TF32 holds of them and what it holds of the rest.
enum class FactorKind { bf16, tf32, two_tf32 };

template <FactorKind kKind>
using FactorElement = std::conditional_t<kKind == FactorKind::bf16, __nv_bfloat16, float>;

// What a lane holds (kernels/tensor_cores.cuh) of `kOuter` rows of a, or columns of b. Layout says
// where the tile has an element: offset(outer, depth).
template <int kOuter>
struct Fragment {
    static constexpr int kRegisters = kOuter / 4;
    unsigned registers[kRegisters];

    static __device__ int group() { return static_cast<int>(threadIdx.x % kWarpSize / 4); }
    static __device__ int in_group() { return static_cast<int>(threadIdx.x % 4); }
};

// Calls load(register, outer, part) for each register, whose element or elements are at `outer` and
// the `part`th half of the depth.
template <int kOuter, class Load>
__device__ void for_registers(Fragment<kOuter>& fragment, const Load& load) {
    constexpr int kHalves = kOuter / 8;
#pragma unroll
    for (int i = 0; i < Fragment<kOuter>::kRegisters; ++i) {
        load(fragment.registers[i], Fragment<kOuter>::group() + i % kHalves * 8, i / kHalves);
    }
}

template <FactorKind kKind>
struct Factors;

template <>
struct Factors<FactorKind::tf32> {
    static constexpr int kDepth = 8;  // of an instruction
    // Whether the sums of a stage are added to those of earlier ones apart, by a rounded addition
    // and not by the tensor core, which cuts.
    static constexpr bool kSumsApart = false;
    template <int kOuter>
    using Of = Fragment<kOuter>;

    template <class Layout, int kOuter>
    static __device__ void load(const float* tile, int outer, int depth, Of<kOuter>& to) {
        for_registers(to, [&](unsigned& here, int row, int part) {
            const int column = depth + Of<kOuter>::in_group() + part * 4;
            here = rounded_to_tf32(tile[Layout::offset(outer + row, column)]);
        });
    }
    static __device__ void multiply(const Of<16>& a, const Of<8>& b, float (&sum)[4],
                                    float (&)[4]) {
        multiply_tf32(a.registers, b.registers, sum);
    }
};

template <>
struct Factors<FactorKind::two_tf32> {
    static constexpr int kDepth = 8;
    static constexpr bool kSumsApart = true;
    template <int kOuter>
    struct Of {
        Fragment<kOuter> first;
        Fragment<kOuter> rest;
    };

    template <class Layout, int kOuter>
    static __device__ void load(const float* tile, int outer, int depth, Of<kOuter>& to) {
        Fragment<kOuter> values;
        for_registers(values, [&](unsigned& here, int row, int part) {
            const int column = depth + Fragment<kOuter>::in_group() + part * 4;
            here = __float_as_uint(tile[Layout::offset(outer + row, column)]);
        });
#pragma unroll
        for (int i = 0; i < Fragment<kOuter>::kRegisters; ++i) {
            const float value = __uint_as_float(values.registers[i]);
            to.first.registers[i] = rounded_to_tf32(value);
            to.rest.registers[i] = rounded_to_tf32(value - __uint_as_float(to.first.registers[i]));
        }
    }
    // What has a rest is small beside the sum, which would cut it: it has one of its own.
    static __device__ void multiply(const Of<16>& a, const Of<8>& b, float (&sum)[4],
                                    float (&rest)[4]) {
        multiply_tf32(a.rest.registers, b.first.registers, rest);
        multiply_tf32(a.first.registers, b.rest.registers, rest);
        multiply_tf32(a.first.registers, b.first.registers, sum);
    }
};

template <>
struct Factors<FactorKind::bf16> {
    static constexpr int kDepth = 16;
    static constexpr bool kSumsApart = false;
    template <int kOuter>
    using Of = Fragment<kOuter>;

    template <class Layout, int kOuter>
    static __device__ void load(const __nv_bfloat16* tile, int outer, int depth, Of<kOuter>& to) {
        for_registers(to, [&](unsigned& here, int row, int part) {
            const int column = depth + Of<kOuter>::in_group() * 2 + part * 8;
            unsigned short two[2];
            memcpy(&two[0], tile + Layout::offset(outer + row, column), sizeof two[0]);
            memcpy(&two[1], tile + Layout::offset(outer + row, column + 1), sizeof two[1]);
            here = two[0] | static_cast<unsigned>(two[1]) << 16;
        });
    }
    static __device__ void multiply(const Of<16>& a, const Of<8>& b, float (&sum)[4],
                                    float (&)[4]) {
        multiply_bf16(a.registers, b.registers, sum);
    }
};

}  // namespace vae::kernels
