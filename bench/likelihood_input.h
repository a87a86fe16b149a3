// What benchmarks of likelihoods share.
#pragma once

#include "bench/gpu_fixture.h"
#include "kernels/likelihood.h"
#include "kernels/reals.h"

namespace vae::bench {

inline kernels::LikelihoodInput input(const DeviceBuffer<float>& product,
                                      const DeviceBuffer<float>& bias, const DeviceBuffer<float>& x,
                                      const Extent& extent) {
    return {product.data(), bias.data(), x.data(), extent.rows, extent.cols};
}

// The arrays of a likelihood with so many outputs a pixel, for the pixels of an extent.
struct LikelihoodBuffers {
    LikelihoodBuffers(const Extent& pixels, std::size_t outputs,
                      kernels::Storage of_gradient = kernels::Storage::fp32)
        : extent(pixels),
          storage(of_gradient),
          product(random_buffer(extent.size() * outputs)),
          bias(random_buffer(extent.width() * outputs)),
          x(extent.size()),
          recon(extent.height()),
          d_product(product.size() * kernels::bytes_of(storage)),
          d_bias(bias.size()) {}

    kernels::LikelihoodInput input() const { return bench::input(product, bias, x, extent); }
    kernels::LikelihoodGradient gradient() const {
        return {.scale = 1.0f / static_cast<float>(extent.rows),
                .d_product = {d_product.data(), storage},
                .d_bias = d_bias.data()};
    }
    std::size_t forward_bytes() const { return product.bytes() + x.bytes(); }
    std::size_t backward_bytes() const { return product.bytes() + x.bytes() + d_product.bytes(); }

    Extent extent;
    kernels::Storage storage;  // of d_product
    DeviceBuffer<float> product;
    DeviceBuffer<float> bias;
    DeviceBuffer<float> x;  // zeros, which every likelihood supports
    DeviceBuffer<float> recon;
    DeviceBuffer<std::byte> d_product;
    DeviceBuffer<float> d_bias;
};

// Values k/steps of the uniform k in [0, steps], times `unit`.
inline DeviceBuffer<float> level_buffer(std::size_t size, int steps, float unit) {
    constexpr std::size_t kBlock = 1 << 16;
    std::mt19937 generator(2);
    std::uniform_int_distribution<int> level(0, steps);
    std::vector<float> block(std::min(size, kBlock));
    for (float& value : block) {
        value = static_cast<float>(level(generator)) / static_cast<float>(steps) * unit;
    }
    return repeated_buffer(size, block);
}

}  // namespace vae::bench
