// What benchmarks of likelihoods share.
#pragma once

#include "bench/gpu_fixture.h"
#include "kernels/likelihood.h"

namespace vae::bench {

inline kernels::LikelihoodInput input(const DeviceBuffer<float>& product,
                                      const DeviceBuffer<float>& bias, const DeviceBuffer<float>& x,
                                      const Extent& extent) {
    return {product.data(), bias.data(), x.data(), extent.rows, extent.cols};
}

}  // namespace vae::bench
