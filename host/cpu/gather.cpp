#include "host/cpu/gather.h"

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

template <class T>
VAE_CPU_INLINE T pixel(std::uint8_t value) {
    return static_cast<T>(value) / T(255);
}

// The bytes' own numbers.
template <class T, class Value>
VAE_CPU_INLINE void counts_row(const Value* data, std::size_t pixels, T* x) {
#pragma omp simd
    for (std::size_t c = 0; c < pixels; ++c) x[c] = static_cast<T>(data[c]);
}

template <class T>
VAE_CPU_INLINE T pixel(float value) {
    return static_cast<T>(value);
}

// 1 with probability p; NaN stays NaN.
template <class T>
VAE_CPU_INLINE T draw(float u, float p) {
    return u <= p ? T(1) : (u > p ? T(0) : static_cast<T>(p));
}

template <class T, class Value>
VAE_CPU_INLINE void grey_row(const Value* data, std::size_t pixels, T* x) {
#pragma omp simd
    for (std::size_t c = 0; c < pixels; ++c) x[c] = pixel<T>(data[c]);
}

template <class T, class Value>
VAE_CPU_INLINE void binary_row(const Value* data, const float* uniforms, std::size_t pixels, T* x) {
#pragma omp simd
    for (std::size_t c = 0; c < pixels; ++c) x[c] = draw<T>(uniforms[c], pixel<float>(data[c]));
}

template <class Value>
VAE_CPU_CLONES void grey(const Value* data, std::size_t pixels, float* x) {
    grey_row(data, pixels, x);
}

template <class Value>
void grey(const Value* data, std::size_t pixels, double* x) {
    grey_row(data, pixels, x);
}

template <class Value>
VAE_CPU_CLONES void binary(const Value* data, const float* uniforms, std::size_t pixels, float* x) {
    binary_row(data, uniforms, pixels, x);
}

template <class Value>
void binary(const Value* data, const float* uniforms, std::size_t pixels, double* x) {
    binary_row(data, uniforms, pixels, x);
}

}  // namespace

template <class T>
void gather(const Dataset& data, std::span<const std::uint32_t> rows, T* x) {
    const std::size_t pixels = data.shape.pixels();
    std::visit(
        [&](const auto& values) {
            for_each_chunk(rows.size(), pixels,
                           [&](std::size_t, std::size_t first, std::size_t last) {
                               for (std::size_t r = first; r < last; ++r) {
                                   const auto* row = values.data() + rows[r] * pixels;
                                   if (data.bytes_are_counts) {
                                       counts_row(row, pixels, x + r * pixels);
                                   } else {
                                       grey(row, pixels, x + r * pixels);
                                   }
                               }
                           });
        },
        data.values);
}

template <class T>
void gather_binary(const Dataset& data, std::span<const std::uint32_t> rows,
                   const NoiseAddress& stream, float* uniforms, T* x) {
    const std::size_t pixels = data.shape.pixels();
    std::visit(
        [&](const auto& values) {
            for_each_chunk(
                rows.size(), pixels, [&](std::size_t, std::size_t first, std::size_t last) {
                    for (std::size_t r = first; r < last; ++r) {
                        NoiseAddress address = stream;
                        address.example = data.first_index + rows[r];
                        float* u = uniforms + r * pixels;
                        fill_uniform(address, {u, pixels});
                        binary(values.data() + rows[r] * pixels, u, pixels, x + r * pixels);
                    }
                });
        },
        data.values);
}

template void gather(const Dataset&, std::span<const std::uint32_t>, float*);
template void gather(const Dataset&, std::span<const std::uint32_t>, double*);
template void gather_binary(const Dataset&, std::span<const std::uint32_t>, const NoiseAddress&,
                            float*, float*);
template void gather_binary(const Dataset&, std::span<const std::uint32_t>, const NoiseAddress&,
                            float*, double*);

}  // namespace vae::cpu
