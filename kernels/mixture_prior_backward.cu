#include <algorithm>

#include "kernels/mixture_prior.cuh"
#include "kernels/step_state.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

constexpr std::size_t kEnoughBlocks = 1024;  // that fill the largest GPU several times over
constexpr std::size_t kLeastRows = 128;      // of a part of the gradient's sum

// How the gradient's sums over the rows are cut: a block has a tile of components by latent
// elements and a part of the rows.
struct GradientGrid {
    unsigned latent_tiles = 0;
    unsigned tiles = 0;
    unsigned parts = 0;
    unsigned part_rows = 0;  // a multiple of kMixtureTile
};

GradientGrid gradient_grid(std::size_t rows, std::size_t components, std::size_t latent) {
    const std::size_t latent_tiles = tiles_of(latent, kMixtureTile);
    const std::size_t tiles = tiles_of(components, kMixtureTile) * latent_tiles;
    const std::size_t parts =
        tiles == 0 ? 0 : std::min(tiles_of(kEnoughBlocks, tiles), tiles_of(rows, kLeastRows));
    const std::size_t part_rows =
        parts == 0 ? 0 : tiles_of(tiles_of(rows, parts), kMixtureTile) * kMixtureTile;
    return {static_cast<unsigned>(latent_tiles), static_cast<unsigned>(tiles),
            static_cast<unsigned>(parts), static_cast<unsigned>(part_rows)};
}

struct GradientMemory {
    MixtureTile gamma;  // times scale·weight
    MixtureTile z;
};

// partials[part, 0, k, j] = −Σ a·pull and partials[part, 1, k, j] = −½ Σ a·(pull·d − 1) over the
// part's rows, pull = s²·d, s = exp(−v/2). A lane has a latent element, a warp kEach components.
__global__ void __launch_bounds__(kMixtureThreads, 2)
    mixture_gradient_kernel(const TiledArray z, const TiledArray gamma,
                            const ComponentArrays components, const float* weight, double factor,
                            const StepState* state, const GradientGrid grid, float* partials) {
    GradientMemory& memory = *dynamic_shared<GradientMemory>();
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned tile = blockIdx.x % grid.tiles;
    const unsigned part = blockIdx.x / grid.tiles;
    const unsigned first_component = tile / grid.latent_tiles * kMixtureTile;
    const unsigned first_latent = tile % grid.latent_tiles * kMixtureTile;
    const unsigned j = first_latent + lane;
    const unsigned latent = z.cols;
    const auto scale = static_cast<float>(with_beta(factor, state));
    float mean[kEach] = {};
    float inverse_sigma[kEach] = {};
#pragma unroll
    for (unsigned i = 0; i < kEach; ++i) {
        const unsigned k = first_component + warp + i * kMixtureWarps;
        if (k >= gamma.cols || j >= latent) continue;
        mean[i] = components.mean.values[static_cast<std::size_t>(k) * latent + j];
        inverse_sigma[i] =
            components.inverse_sigma.values[static_cast<std::size_t>(k) * latent + j];
    }
    double totals[2][kEach] = {};
    const unsigned end = min(z.rows, (part + 1) * grid.part_rows);
    for (unsigned first = part * grid.part_rows; first < end; first += kMixtureTile) {
        gamma.load(first, first_component, memory.gamma);
        z.load(first, first_latent, memory.z);
        __syncthreads();
        float sums[2][kEach] = {};
        for (unsigned r = 0; r < kMixtureTile; ++r) {
            const float of_row = first + r < z.rows ? scale * weight[first + r] : 0.0f;
            const float code = memory.z[r][lane];
#pragma unroll
            for (unsigned i = 0; i < kEach; ++i) {
                const float a = of_row * memory.gamma[r][warp + i * kMixtureWarps];
                const float d = code - mean[i];
                const float pull = inverse_sigma[i] * inverse_sigma[i] * d;
                sums[0][i] -= a * pull;
                sums[1][i] -= a * (pull * d - 1.0f);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < kEach; ++i) {
            totals[0][i] += sums[0][i];
            totals[1][i] += 0.5 * sums[1][i];
        }
        __syncthreads();
    }
    if (j >= latent) return;
#pragma unroll
    for (unsigned i = 0; i < kEach; ++i) {
        const unsigned k = first_component + warp + i * kMixtureWarps;
        if (k >= gamma.cols) break;
#pragma unroll
        for (unsigned which = 0; which < 2; ++which) {
            const std::size_t row = (std::size_t{2} * part + which) * gamma.cols + k;
            partials[row * latent + j] = static_cast<float>(totals[which][i]);
        }
    }
}

// The gradients of means and log-variances from the parts' sums, over [components, latent], stored
// as T.
template <class T>
struct MixtureFinishOp {
    static constexpr bool kRowSums = false;
    static constexpr int kColumnSums = 2;
    template <int V>
    struct Columns {};
    template <int V>
    struct Loaded {
        float mean;
        float logvar;
    };

    MixtureSource source;
    MixtureGradient gradient;
    T* d_mean;
    T* d_logvar;
    const float* partials;
    unsigned parts;

    __device__ float sum(unsigned which, unsigned k, unsigned j) const {
        double total = 0;
        for (unsigned part = 0; part < parts; ++part) {
            const std::size_t row = (std::size_t{2} * part + which) * source.components + k;
            total += partials[row * source.latent + j];
        }
        return static_cast<float>(total);
    }
    template <int V>
    __device__ Columns<V> columns(unsigned) const {
        return {};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned k, unsigned j, const Columns<V>&) const {
        const float unclamped = source_logvar(source, k, j);
        const bool is_outside = unclamped < source.logvar_min || unclamped > source.logvar_max;
        return {sum(0, k, j), is_outside ? 0.0f : sum(1, k, j)};
    }
    template <int V>
    __device__ void apply(unsigned k, unsigned j, const Columns<V>&, const Loaded<V>& loaded,
                          float&, float (&column_sums)[2 * V]) const {
        const std::size_t at = static_cast<std::size_t>(k) * source.row_stride + j;
        store_floats<1>(d_mean + at, {{loaded.mean}});
        store_floats<1>(d_logvar + at, {{loaded.logvar}});
        column_sums[0] += loaded.mean;
        column_sums[1] += loaded.logvar;
    }
    __device__ void store_column(unsigned col, double sum) const {
        const unsigned latent = static_cast<unsigned>(source.latent);
        float* const bias = col < latent ? gradient.mean_bias : gradient.logvar_bias;
        if (bias == nullptr) return;
        float& value = bias[col < latent ? col : col - latent];
        value = static_cast<float>(value + sum);
    }
};

// The gradient of the logits: column sums over [rows, components].
struct MixtureLogitsOp {
    static constexpr bool kRowSums = false;
    static constexpr int kColumnSums = 1;
    template <int V>
    struct Columns {
        float weight;
        float scale;
    };
    template <int V>
    struct Loaded {
        float gamma;
        float weight;
    };

    MixtureRows rows;
    std::size_t components;
    const double* log_weight;
    float* d_logits;

    template <int V>
    __device__ Columns<V> columns(unsigned k) const {
        return {static_cast<float>(exp(log_weight[k])),
                static_cast<float>(with_beta(rows.scale, rows.state))};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned k, const Columns<V>&) const {
        return {rows.gamma[row * components + k], rows.weight[row]};
    }
    template <int V>
    __device__ void apply(unsigned, unsigned, const Columns<V>& columns, const Loaded<V>& loaded,
                          float&, float (&column_sums)[V]) const {
        column_sums[0] -= columns.scale * loaded.weight * (loaded.gamma - columns.weight);
    }
    __device__ void store_column(unsigned k, double sum) const {
        d_logits[k] = static_cast<float>(sum);
    }
};

}  // namespace

// The parts' sums, and behind them what kernels/tile.cuh needs.
ScratchSize mixture_scratch_size(int rows, int components, int latent) {
    require_shape(rows, components, "mixture_scratch_size");
    const ScratchSize of_finish = scratch_size(components, latent, 2);
    const ScratchSize of_logits = scratch_size(rows, components, 1);
    const std::size_t elements =
        static_cast<std::size_t>(components) * static_cast<std::size_t>(latent);
    const GradientGrid grid =
        gradient_grid(static_cast<std::size_t>(rows), static_cast<std::size_t>(components),
                      static_cast<std::size_t>(latent));
    return {2 * grid.parts * elements + std::max(of_finish.partials, of_logits.partials),
            std::max(of_finish.tickets, of_logits.tickets)};
}

void mixture_backward(const MixtureSource& source, const MixtureComponents& components,
                      const MixtureRows& rows, const MixtureGradient& gradient,
                      const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "mixture_backward";
    require_mixture(source, kLauncher);
    const ScratchSize size = mixture_scratch_size(rows.rows, source.components, source.latent);
    require(scratch.partials_size >= size.partials && scratch.tickets_size >= size.tickets,
            kLauncher, "scratch is smaller than mixture_scratch_size says");
    const auto height = static_cast<unsigned>(rows.rows);
    const auto count = static_cast<unsigned>(source.components);
    const auto latent = static_cast<unsigned>(source.latent);
    if (gradient.logits != nullptr && height == 0) {
        cuda_check(cudaMemsetAsync(gradient.logits, 0, sizeof(float) * count, stream), kLauncher);
    }
    if (gradient.logits != nullptr && height > 0) {
        const MixtureLogitsOp op{rows, count, components.log_weight, gradient.logits};
        launch_tiles_of<1>(kLauncher, op, rows.rows, source.components, scratch, stream);
    }
    if (latent == 0) return;
    const GradientGrid grid = gradient_grid(height, count, latent);
    if (height > 0) {
        const std::size_t blocks = static_cast<std::size_t>(grid.tiles) * grid.parts;
        launch(kLauncher, mixture_gradient_kernel,
               {dim3(checked_blocks(blocks, kLauncher)), dim3(kMixtureThreads),
                sizeof(GradientMemory)},
               stream, TiledArray{rows.z, height, latent}, TiledArray{rows.gamma, height, count},
               arrays_of(source, components), rows.weight, rows.scale, rows.state, grid,
               scratch.partials);
    }
    const std::size_t used = std::size_t{2} * grid.parts * count * latent;
    const Scratch behind{scratch.partials + used, scratch.partials_size - used, scratch.tickets,
                         scratch.tickets_size};
    with_storage(kLauncher, {gradient.mean, gradient.logvar}, [&](auto element) {
        using T = decltype(element);
        const MixtureFinishOp<T> op{
            source,           gradient,  gradient.mean.of<T>(), gradient.logvar.of<T>(),
            scratch.partials, grid.parts};
        launch_tiles_of<1>(kLauncher, op, source.components, source.latent, behind, stream);
    });
}

}  // namespace vae::kernels
