#include "kernels/free_bits.h"

#include <limits>

#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kLossWarps = 4;
constexpr unsigned kLossThreads = kLossWarps * kWarpSize;
constexpr unsigned kTotalThreads = 512;
constexpr unsigned kTotalWarps = kTotalThreads / kWarpSize;

// Not `sum > floor`, which a NaN would fail.
__device__ inline bool is_above(double sum, double floor) {
    return !(sum <= floor);
}

// An element's part of 2·kl. The clamp lets a NaN through.
__device__ inline float twice_kl(float mu, float unclamped, float low, float high) {
    const float raised = unclamped < low ? low : unclamped;
    const float logvar = raised > high ? high : raised;
    return mu * mu + (expm1f(logvar) - logvar);
}

// Over the columns [0, latent) of the heads.
struct MeanKlOp {
    static constexpr bool kRowSums = false;
    static constexpr int kColumnSums = 1;
    template <int V>
    struct Columns {
        Pack<V> mu_bias;
        Pack<V> logvar_bias;
    };
    template <int V>
    struct Loaded {
        Pack<V> mu;
        Pack<V> logvar;
    };

    HeadsView heads;
    double floor;  // of a column's sum of 2·kl
    float* kl_mask;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return {load_pack<V>(heads.mu_bias + col), load_pack<V>(heads.logvar_bias + col)};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        const auto stride = static_cast<unsigned>(heads.stride);
        const float* const product = heads.product + static_cast<std::size_t>(row) * 2 * stride;
        return {load_pack<V>(product + col), load_pack<V>(product + stride + col)};
    }
    template <int V>
    __device__ void apply(unsigned, unsigned, const Columns<V>& biases, const Loaded<V>& loaded,
                          float&, float (&column_sums)[V]) const {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            column_sums[i] += twice_kl(loaded.mu.v[i] + biases.mu_bias.v[i],
                                       loaded.logvar.v[i] + biases.logvar_bias.v[i],
                                       heads.logvar_min, heads.logvar_max);
        }
    }
    __device__ void store_column(unsigned col, double sum) const {
        kl_mask[col] = is_above(sum, floor) ? 1.0f : 0.0f;
    }
};

__global__ void __launch_bounds__(kLossThreads)
    free_bits_loss_kernel(const HeadsView heads, float nats, const float* kl_mask, float* loss_kl) {
    const unsigned example = blockIdx.x * kLossWarps + threadIdx.x / kWarpSize;
    if (example >= static_cast<unsigned>(heads.examples)) return;  // the whole warp
    const auto latent = static_cast<unsigned>(heads.latent);
    const auto stride = static_cast<unsigned>(heads.stride);
    const float* const product = heads.product + static_cast<std::size_t>(example) * 2 * stride;
    float sum = 0;
    for (unsigned j = threadIdx.x % kWarpSize; j < latent; j += kWarpSize) {
        const float own =
            twice_kl(product[j] + heads.mu_bias[j], product[stride + j] + heads.logvar_bias[j],
                     heads.logvar_min, heads.logvar_max);
        sum += kl_mask[j] != 0.0f ? 0.5f * own : nats;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % kWarpSize == 0) loss_kl[example] = sum;
}

__global__ void __launch_bounds__(kTotalThreads)
    free_bits_in_total_kernel(const float* kl, unsigned examples, unsigned latent, float nats,
                              float* kl_mask, float* loss_kl) {
    double* const memory = dynamic_shared<double>();  // a sum a warp, and whether it is above
    double sum = 0;
    for (unsigned b = threadIdx.x; b < examples; b += kTotalThreads) sum += kl[b];
    sum = block_sum(sum, memory);
    if (threadIdx.x == 0) {
        memory[kTotalWarps] = is_above(sum, static_cast<double>(nats) * examples) ? 1 : 0;
    }
    __syncthreads();
    const bool above = memory[kTotalWarps] != 0;
    for (unsigned j = threadIdx.x; j < latent; j += kTotalThreads) kl_mask[j] = above ? 1.0f : 0.0f;
    for (unsigned b = threadIdx.x; b < examples; b += kTotalThreads) {
        loss_kl[b] = above ? kl[b] : nats;
    }
}

}  // namespace

void free_bits_per_dimension(const HeadsView& heads, float nats, float* kl_mask, float* loss_kl,
                             const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "free_bits_per_dimension";
    require_shape(heads.examples, heads.latent, kLauncher);
    require(heads.stride >= heads.latent, kLauncher, "stride must not be less than latent");
    if (heads.examples == 0 || heads.latent == 0) return;
    const MeanKlOp op{heads, 2.0 * static_cast<double>(nats) * heads.examples, kl_mask};
    const bool wide = heads.latent % 4 == 0 && heads.stride % 4 == 0 &&
                      aligned_to_four(heads.product, heads.mu_bias, heads.logvar_bias);
    launch_tiles(kLauncher, op, heads.examples, heads.latent, wide, scratch, stream);
    const std::size_t blocks = tiles_of(static_cast<std::size_t>(heads.examples), kLossWarps);
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kLossThreads)};
    launch(kLauncher, free_bits_loss_kernel, shape, stream, heads, nats, kl_mask, loss_kl);
}

void free_bits_in_total(const float* kl, int examples, int latent, float nats, float* kl_mask,
                        float* loss_kl, cudaStream_t stream) {
    constexpr const char* kLauncher = "free_bits_in_total";
    require_shape(examples, latent, kLauncher);
    if (examples == 0) return;
    const LaunchShape shape{dim3(1), dim3(kTotalThreads), (kTotalWarps + 1) * sizeof(double)};
    launch(kLauncher, free_bits_in_total_kernel, shape, stream, kl, static_cast<unsigned>(examples),
           static_cast<unsigned>(latent), nats, kl_mask, loss_kl);
}

}  // namespace vae::kernels
