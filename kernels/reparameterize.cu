#include "kernels/reparameterize.h"

#include <limits>

#include "kernels/launch.h"
#include "kernels/philox.cuh"
#include "kernels/reduce.cuh"
#include "kernels/reparameterize.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kForwardWarps = 4;
constexpr unsigned kForwardThreads = kForwardWarps * kWarpSize;

// Element j of a draw: everything but the sums. Adds its parts of 2·kl and 2·log_ratio.
__device__ inline void forward_element(const HeadsView& heads, const Draws& draws,
                                       std::size_t example, std::size_t row, unsigned j,
                                       float epsilon, float& kl, float& log_ratio) {
    const std::size_t latent = static_cast<std::size_t>(heads.latent);
    const float* const product =
        heads.product + example * 2 * static_cast<std::size_t>(heads.stride);
    const float mu = product[j] + heads.mu_bias[j];
    const float logvar = clamped_logvar(
        heads, product[static_cast<unsigned>(heads.stride) + j] + heads.logvar_bias[j]);
    const float z = drawn(mu, logvar, epsilon);
    if (row == example * static_cast<std::size_t>(heads.samples)) {  // the example's first draw
        if (draws.mu != nullptr) draws.mu[example * latent + j] = mu;
        if (draws.logvar != nullptr) draws.logvar[example * latent + j] = logvar;
    }
    if (draws.epsilon != nullptr) draws.epsilon[row * latent + j] = epsilon;
    draws.z[row * latent + j] = z;
    if (draws.rounded_z != nullptr) store_floats<1>(draws.rounded_z + row * latent + j, {{z}});
    kl += twice_kl(mu, logvar);
    log_ratio += (mu + expm1f(0.5f * logvar) * epsilon) * (z + epsilon) - logvar;
}

// A warp a draw; a lane takes four neighboring elements, which share one block of random words.
__global__ void __launch_bounds__(kForwardThreads)
    reparameterize_forward_kernel(const HeadsView heads, const EpsilonSource source,
                                  const Draws draws) {
    const std::size_t row =
        static_cast<std::size_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarpSize;
    const std::size_t samples = static_cast<std::size_t>(heads.samples);
    if (row >= static_cast<std::size_t>(heads.examples) * samples) return;  // the whole warp
    const std::size_t example = row / samples;
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned latent = static_cast<unsigned>(heads.latent);
    NoiseStream noise = at_its_step(source.stream);
    noise.sample += static_cast<unsigned>(row % samples);
    const std::uint32_t address = source.first_index + source.index[example];
    float kl = 0;
    float log_ratio = 0;
    for (unsigned j = 4 * lane; j < latent; j += 4 * kWarpSize) {
        const float4 epsilon = normal4(noise, address, j / 4);
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            if (j + i < latent) {
                forward_element(heads, draws, example, row, j + i, member(epsilon, i), kl,
                                log_ratio);
            }
        }
    }
    if (draws.kl != nullptr && row == example * samples) {
        kl = warp_sum(kl);
        if (lane == 0) draws.kl[example] = 0.5f * kl;
    }
    if (draws.log_ratio != nullptr) {
        log_ratio = warp_sum(log_ratio);
        if (lane == 0) draws.log_ratio[row] = 0.5f * log_ratio;
    }
}

}  // namespace

void reparameterize_forward(const HeadsView& heads, const EpsilonSource& source, const Draws& draws,
                            cudaStream_t stream) {
    constexpr const char* kLauncher = "reparameterize_forward";
    require_heads(heads, kLauncher);
    if (heads.examples == 0) return;
    const std::size_t rows = static_cast<std::size_t>(heads.examples) * heads.samples;
    const std::size_t blocks = tiles_of(rows, kForwardWarps);
    require(blocks <= std::numeric_limits<int>::max(), kLauncher, "there are too many draws");
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kForwardThreads)};
    launch(kLauncher, reparameterize_forward_kernel, shape, stream, heads, source, draws);
}

}  // namespace vae::kernels
