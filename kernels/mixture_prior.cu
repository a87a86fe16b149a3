#include "kernels/mixture_prior.h"

#include "kernels/functions.cuh"
#include "kernels/largest.cuh"
#include "kernels/mixture_prior.cuh"

namespace vae::kernels {
namespace {

// log Σ exp(logits), in every lane.
__device__ inline double log_total(const MixtureSource& source, unsigned lane) {
    const unsigned components = static_cast<unsigned>(source.components);
    if (source.logits == nullptr) return log(static_cast<double>(components));
    double top = -INFINITY;
    for (unsigned k = lane; k < components; k += kWarpSize) top = larger(top, source.logits[k]);
    top = warp_largest(top);
    double sum = 0;
    for (unsigned k = lane; k < components; k += kWarpSize) sum += exp(source.logits[k] - top);
    return top + log(warp_sum(sum));
}

// A warp a component; each adds up all logits itself.
__global__ void __launch_bounds__(kMixtureThreads)
    mixture_components_kernel(const MixtureSource source, const MixtureComponents out) {
    const unsigned k = blockIdx.x * kMixtureWarps + threadIdx.x / kWarpSize;
    if (k >= static_cast<unsigned>(source.components)) return;  // the whole warp
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned latent = static_cast<unsigned>(source.latent);
    const std::size_t first = static_cast<std::size_t>(k) * latent;
    double sum = 0;
    for (unsigned j = lane; j < latent; j += kWarpSize) {
        const float logvar =
            clamp(source_logvar(source, k, j), source.logvar_min, source.logvar_max);
        out.mean[first + j] = source_mean(source, k, j);
        out.inverse_sigma[first + j] = expf(-0.5f * logvar);
        out.excess[first + j] = -expm1f(-0.5f * logvar);
        sum += logvar;
    }
    sum = warp_sum(sum);
    const double logit = source.logits != nullptr ? source.logits[k] : 0.0f;
    const double log_weight = logit - log_total(source, lane);
    if (lane != 0) return;
    out.offset[k] = static_cast<float>(-0.5 * sum);
    out.log_weight[k] = log_weight;
}

struct ExponentMemory {
    MixtureTile z;
    MixtureTile mean;
    MixtureTile inverse_sigma;
    MixtureTile excess;
};

// exponents[r, k] = a_k of code r. A lane has a component, a warp kEach rows.
__global__ void __launch_bounds__(kMixtureThreads, 2)
    mixture_exponent_kernel(const TiledArray z, const ComponentArrays components,
                            const float* offset, unsigned tiles, float* exponents) {
    ExponentMemory& memory = *dynamic_shared<ExponentMemory>();
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned first_row = blockIdx.x / tiles * kMixtureTile;
    const unsigned first_component = blockIdx.x % tiles * kMixtureTile;
    double total[kEach] = {};
    for (unsigned first = 0; first < z.cols; first += kMixtureTile) {
        z.load(first_row, first, memory.z);
        components.mean.load(first_component, first, memory.mean);
        components.inverse_sigma.load(first_component, first, memory.inverse_sigma);
        components.excess.load(first_component, first, memory.excess);
        __syncthreads();
        float sum[kEach] = {};
#pragma unroll 4
        for (unsigned j = 0; j < kMixtureTile; ++j) {
            const float mean = memory.mean[lane][j];
            const float s = memory.inverse_sigma[lane][j];
            const float excess = memory.excess[lane][j];
#pragma unroll
            for (unsigned i = 0; i < kEach; ++i) {
                const float code = memory.z[warp + i * kMixtureWarps][j];
                sum[i] += (s * mean + excess * code) * (code + s * (code - mean));
            }
        }
#pragma unroll
        for (unsigned i = 0; i < kEach; ++i) total[i] += sum[i];
        __syncthreads();
    }
    const unsigned k = first_component + lane;
    if (k >= components.mean.rows) return;
#pragma unroll
    for (unsigned i = 0; i < kEach; ++i) {
        const unsigned row = first_row + warp + i * kMixtureWarps;
        if (row >= z.rows) break;
        exponents[static_cast<std::size_t>(row) * components.mean.rows + k] =
            static_cast<float>(offset[k] + 0.5 * total[i]);
    }
}

// A warp a row: exponents become gamma in their place.
__global__ void __launch_bounds__(kMixtureThreads)
    mixture_gamma_kernel(const double* log_weight, const MixtureOutputs out, unsigned rows,
                         unsigned components) {
    const std::size_t row =
        static_cast<std::size_t>(blockIdx.x) * kMixtureWarps + threadIdx.x / kWarpSize;
    if (row >= rows) return;  // the whole warp
    const unsigned lane = threadIdx.x % kWarpSize;
    float* const gamma = out.gamma + row * components;
    double top = -INFINITY;
    for (unsigned k = lane; k < components; k += kWarpSize) {
        top = larger(top, gamma[k] + log_weight[k]);
    }
    top = warp_largest(top);
    double total = 0;
    for (unsigned k = lane; k < components; k += kWarpSize) {
        total += exp(gamma[k] + log_weight[k] - top);
    }
    total = warp_sum(total);
    for (unsigned k = lane; k < components; k += kWarpSize) {
        gamma[k] = static_cast<float>(exp(gamma[k] + log_weight[k] - top) / total);
    }
    if (lane != 0) return;
    const double relative = top + log(total);
    if (out.relative != nullptr) out.relative[row] = static_cast<float>(relative);
    if (out.log_ratio != nullptr) {
        out.log_ratio[row] = static_cast<float>(out.log_ratio[row] - relative);
    }
}

struct ScoreMemory {
    MixtureTile gamma;
    MixtureTile mean;
    MixtureTile inverse_sigma;
};

// score[r, j] = Σ_k gamma·s²·(mean − z), s = exp(−v/2). A lane has a latent element, a warp kEach
// rows.
__global__ void __launch_bounds__(kMixtureThreads, 2)
    mixture_score_kernel(const float* z, const TiledArray gamma, const ComponentArrays components,
                         unsigned tiles, float* score) {
    ScoreMemory& memory = *dynamic_shared<ScoreMemory>();
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned first_row = blockIdx.x / tiles * kMixtureTile;
    const unsigned latent = components.mean.cols;
    const unsigned first = blockIdx.x % tiles * kMixtureTile;
    const unsigned j = first + lane;
    float own[kEach] = {};
#pragma unroll
    for (unsigned i = 0; i < kEach; ++i) {
        const unsigned row = first_row + warp + i * kMixtureWarps;
        if (row < gamma.rows && j < latent) own[i] = z[static_cast<std::size_t>(row) * latent + j];
    }
    double total[kEach] = {};
    for (unsigned k = 0; k < gamma.cols; k += kMixtureTile) {
        gamma.load(first_row, k, memory.gamma);
        components.mean.load(k, first, memory.mean);
        components.inverse_sigma.load(k, first, memory.inverse_sigma);
        __syncthreads();
        float sum[kEach] = {};
#pragma unroll 4
        for (unsigned c = 0; c < kMixtureTile; ++c) {
            const float mean = memory.mean[c][lane];
            const float s = memory.inverse_sigma[c][lane];
#pragma unroll
            for (unsigned i = 0; i < kEach; ++i) {
                sum[i] += memory.gamma[warp + i * kMixtureWarps][c] * (s * s) * (mean - own[i]);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < kEach; ++i) total[i] += sum[i];
        __syncthreads();
    }
    if (j >= latent) return;
#pragma unroll
    for (unsigned i = 0; i < kEach; ++i) {
        const unsigned row = first_row + warp + i * kMixtureWarps;
        if (row >= gamma.rows) break;
        score[static_cast<std::size_t>(row) * latent + j] = static_cast<float>(total[i]);
    }
}

}  // namespace

void mixture_components(const MixtureSource& source, const MixtureComponents& out,
                        cudaStream_t stream) {
    constexpr const char* kLauncher = "mixture_components";
    require_mixture(source, kLauncher);
    const auto blocks =
        static_cast<unsigned>(tiles_of(static_cast<std::size_t>(source.components), kMixtureWarps));
    launch(kLauncher, mixture_components_kernel, {dim3(blocks), dim3(kMixtureThreads)}, stream,
           source, out);
}

void mixture_forward(const MixtureSource& source, const MixtureComponents& components,
                     const float* z, int rows, const MixtureOutputs& out, cudaStream_t stream) {
    constexpr const char* kLauncher = "mixture_forward";
    require_mixture(source, kLauncher);
    require(rows >= 0, kLauncher, "rows must not be negative");
    if (rows == 0) return;
    const auto height = static_cast<unsigned>(rows);
    const auto count = static_cast<unsigned>(source.components);
    const auto latent = static_cast<unsigned>(source.latent);
    const std::size_t row_tiles = tiles_of(height, kMixtureTile);
    const ComponentArrays arrays = arrays_of(source, components);
    const auto component_tiles = static_cast<unsigned>(tiles_of(count, kMixtureTile));
    launch(kLauncher, mixture_exponent_kernel,
           {dim3(checked_blocks(row_tiles * component_tiles, kLauncher)), dim3(kMixtureThreads),
            sizeof(ExponentMemory)},
           stream, TiledArray{z, height, latent}, arrays, components.offset, component_tiles,
           out.gamma);
    launch(
        kLauncher, mixture_gamma_kernel,
        {dim3(checked_blocks(tiles_of(height, kMixtureWarps), kLauncher)), dim3(kMixtureThreads)},
        stream, components.log_weight, out, height, count);
    const auto latent_tiles = static_cast<unsigned>(tiles_of(latent, kMixtureTile));
    if (latent_tiles == 0) return;
    launch(kLauncher, mixture_score_kernel,
           {dim3(checked_blocks(row_tiles * latent_tiles, kLauncher)), dim3(kMixtureThreads),
            sizeof(ScoreMemory)},
           stream, z, TiledArray{out.gamma, height, count}, arrays, latent_tiles, out.score);
}

}  // namespace vae::kernels
