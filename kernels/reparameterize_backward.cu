#include <limits>

#include "kernels/philox.cuh"
#include "kernels/reparameterize.cuh"
#include "kernels/step_state.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

// Over the columns [0, 2·stride) of d_product, stored as D: mu's half, then log-variance's.
template <class D>
struct HeadsBackwardOp {
    static constexpr unsigned kResidentBlocks = 2;  // the draws' noise takes 128 registers
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = true;
    // With V = 4 all of a thread's columns lie in one half, and `first` is a multiple of 4.
    template <int V>
    struct Columns {
        bool is_logvar;
        unsigned first;  // latent element of the first column
        float kl_scale;
        Pack<V> mu_bias;
        Pack<V> logvar_bias;
    };
    template <int V>
    struct Loaded {
        Pack<V> mu;
        Pack<V> logvar;
        std::uint32_t index;
    };

    HeadsView heads;
    EpsilonSource source;
    LatentGradient gradient;
    D* d_product;
    float* d_mu_bias;
    float* d_logvar_bias;

    __device__ unsigned latent() const { return static_cast<unsigned>(heads.latent); }
    __device__ unsigned stride() const { return static_cast<unsigned>(heads.stride); }

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        Columns<V> result = {};
        result.is_logvar = col >= stride();
        result.first = result.is_logvar ? col - stride() : col;
        result.kl_scale = static_cast<float>(with_beta(gradient.kl_scale, gradient.state));
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            if (result.first + i >= latent()) continue;
            result.mu_bias.v[i] = heads.mu_bias[result.first + i];
            result.logvar_bias.v[i] = heads.logvar_bias[result.first + i];
        }
        return result;
    }

    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned, const Columns<V>& columns) const {
        Loaded<V> result = {};
        const float* const product = heads.product + static_cast<std::size_t>(row) * 2 * stride();
        result.mu = load_pack<V>(product + columns.first);
        result.logvar = load_pack<V>(product + stride() + columns.first);
        result.index = source.index[row];
        return result;
    }

    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&column_sums)[V]) const {
        const bool is_logvar = columns.is_logvar;
        const unsigned j = columns.first;
        Element elements[V] = {};
        float sums[V] = {};
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            elements[i] = element_of(heads, loaded.mu.v[i] + columns.mu_bias.v[i],
                                     loaded.logvar.v[i] + columns.logvar_bias.v[i]);
            if (j + i >= latent()) continue;
            sums[i] = kl_part(gradient, columns.kl_scale, elements[i], is_logvar, j + i);
        }
        const bool has_noise = j < latent() && needs_noise(gradient, is_logvar);
        const unsigned samples = static_cast<unsigned>(heads.samples);
        NoiseStream noise = at_its_step(source.stream);
        for (unsigned s = 0; s < samples; ++s, ++noise.sample) {
            float4 epsilon = {};
            if (has_noise) epsilon = normal4(noise, source.first_index + loaded.index, j / 4);
            const std::size_t r = static_cast<std::size_t>(row) * samples + s;
#pragma unroll
            for (unsigned i = 0; i < V; ++i) {
                if (j + i >= latent()) continue;
                sums[i] += draw_part(gradient, elements[i], is_logvar, {r, latent(), j + i},
                                     member(epsilon, V == 4 ? i : j % 4));
            }
        }
        Pack<V> d = {};
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            if (j + i >= latent()) continue;
            d.v[i] = finished(elements[i], is_logvar, sums[i]);
            column_sums[i] += d.v[i];
        }
        store_floats<V>(d_product + static_cast<std::size_t>(row) * 2 * stride() + col, d);
    }

    __device__ void store_column(unsigned col, double sum) const {
        const bool is_logvar = col >= stride();
        const unsigned j = is_logvar ? col - stride() : col;
        if (j < latent()) (is_logvar ? d_logvar_bias : d_mu_bias)[j] = static_cast<float>(sum);
    }
};

constexpr unsigned kElements = 4;             // of a warp: those that share random words
constexpr unsigned kColumns = 2 * kElements;  // of a warp: theirs of mu, theirs of log-variance
constexpr unsigned kResidentDrawsBlocks = 2;  // lets a thread have 128 registers: it wants about 72

struct DrawsMemory {
    double slot_sums[kTileWarps][kWarpSize];
    float sums[kTileWarps][kColumns];
    unsigned is_last;
};

// Where a block of heads_draws_backward_kernel stands: its rows and its elements of the latent
// space, whose columns are summed in slots [row_tiles, 2·stride].
struct DrawsPosition {
    unsigned row_tile, first;

    __device__ DrawsPosition(const TileGrid& grid)
        : row_tile(blockIdx.x / grid.col_tiles), first(blockIdx.x % grid.col_tiles * kElements) {}

    // Column i < kColumns of the block, of d_product; stride·2 for what is in no column.
    __device__ unsigned column(unsigned i, unsigned stride) const {
        const unsigned j = first + i % kElements;
        if (j >= stride) return 2 * stride;
        return i < kElements ? j : stride + j;
    }
};

// What the lane's draws of an example add to the gradients of the columns of four elements.
template <class D>
__device__ inline void add_draws(const HeadsBackwardOp<D>& op, unsigned row, unsigned first,
                                 unsigned lane, const Element (&elements)[kElements],
                                 float (&sums)[kColumns]) {
    const unsigned latent = op.latent();
    const auto samples = static_cast<unsigned>(op.heads.samples);
    const std::uint32_t address = op.source.first_index + op.source.index[row];
    NoiseStream noise = at_its_step(op.source.stream);
    noise.sample += lane;
    for (unsigned s = lane; s < samples; s += kWarpSize, noise.sample += kWarpSize) {
        const float4 epsilon = normal4(noise, address, first / kElements);
        const std::size_t r = static_cast<std::size_t>(row) * samples + s;
#pragma unroll
        for (unsigned i = 0; i < kElements; ++i) {
            if (first + i >= latent) continue;
            const float own = member(epsilon, i);
            sums[i] += draw_part(op.gradient, elements[i], false, {r, latent, first + i}, own);
            sums[kElements + i] +=
                draw_part(op.gradient, elements[i], true, {r, latent, first + i}, own);
        }
    }
}

// The gradients of one example's columns; lane i has that of column i of the block.
template <class D>
__device__ inline float example_gradient(const HeadsBackwardOp<D>& op, unsigned row, unsigned first,
                                         unsigned lane) {
    const HeadsView& heads = op.heads;
    const LatentGradient& gradient = op.gradient;
    const unsigned latent = op.latent();
    const unsigned stride = op.stride();
    const auto kl_scale = static_cast<float>(with_beta(gradient.kl_scale, gradient.state));
    const float* const product = heads.product + static_cast<std::size_t>(row) * 2 * stride;
    Element elements[kElements] = {};
    float sums[kColumns] = {};
#pragma unroll
    for (unsigned i = 0; i < kElements; ++i) {
        const unsigned j = first + i;
        if (j >= latent) continue;
        elements[i] = element_of(heads, product[j] + heads.mu_bias[j],
                                 product[stride + j] + heads.logvar_bias[j]);
    }
    add_draws(op, row, first, lane, elements, sums);
    float result = 0;
#pragma unroll
    for (unsigned i = 0; i < kColumns; ++i) {
        const bool is_logvar = i >= kElements;
        const Element& element = elements[i % kElements];
        float sum = warp_sum(sums[i]);
        const unsigned j = first + i % kElements;
        if (lane != i || j >= latent) continue;
        sum += kl_part(gradient, kl_scale, element, is_logvar, j);
        result = finished(element, is_logvar, sum);
    }
    return result;
}

// The bias gradients, by the last block of all: lanes over the columns, warps over their slots.
template <class D>
__device__ inline void add_slots(const HeadsBackwardOp<D>& op, const TileGrid& grid,
                                 const Scratch& scratch, DrawsMemory& memory) {
    const unsigned columns = 2 * op.stride();
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned lane = threadIdx.x % kWarpSize;
    for (unsigned first = 0; first < columns; first += kWarpSize) {
        const unsigned column = first + lane;
        double sum = 0;
        if (column < columns) {
#pragma unroll 4
            for (unsigned tile = warp; tile < grid.row_tiles; tile += kTileWarps) {
                sum += scratch.partials[static_cast<std::size_t>(tile) * columns + column];
            }
        }
        memory.slot_sums[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && column < columns) {
            double total = 0;
            for (unsigned w = 0; w < kTileWarps; ++w) total += memory.slot_sums[w][lane];
            op.store_column(column, total);
        }
        __syncthreads();  // before the sums of the next columns
    }
}

// A warp an example and four elements of the latent space at a time, lanes over the draws: noise is
// drawn once for mu and log-variance. A block has 8·rows_per_warp examples; the last block of all
// adds the slots of the bias gradients.
template <class D>
__global__ void __launch_bounds__(kTileThreads, kResidentDrawsBlocks)
    heads_draws_backward_kernel(const HeadsBackwardOp<D> op, const TileGrid grid,
                                const Scratch scratch) {
    auto& memory = *dynamic_shared<DrawsMemory>();
    const DrawsPosition at(grid);
    const unsigned stride = op.stride();
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned own_column = at.column(lane % kColumns, stride);
    float column_sum = 0;
    for (unsigned k = 0; k < grid.rows_per_warp; ++k) {
        const unsigned row = (at.row_tile * grid.rows_per_warp + k) * kTileWarps + warp;
        if (row >= grid.rows) break;  // the whole warp
        const float d = example_gradient(op, row, at.first, lane);
        if (lane >= kColumns || own_column == 2 * stride) continue;
        store_floats<1>(op.d_product + static_cast<std::size_t>(row) * 2 * stride + own_column,
                        {{d}});
        column_sum += d;
    }
    if (lane < kColumns) memory.sums[warp][lane] = column_sum;
    __syncthreads();
    if (threadIdx.x < kColumns && own_column < 2 * stride) {
        float sum = 0;
        for (unsigned w = 0; w < kTileWarps; ++w) sum += memory.sums[w][threadIdx.x];
        if (grid.row_tiles == 1) {
            op.store_column(own_column, sum);
        } else {
            scratch.partials[static_cast<std::size_t>(at.row_tile) * 2 * stride + own_column] = sum;
        }
    }
    if (grid.row_tiles == 1) return;
    __syncthreads();  // the block's slots are written, before thread 0 says so
    if (threadIdx.x == 0) {
        __threadfence();
        memory.is_last = take_last_ticket(scratch.tickets, gridDim.x) ? 1u : 0u;
        __threadfence();  // and the others' slots are seen, before the block reads them
    }
    __syncthreads();
    if (memory.is_last != 0) add_slots(op, grid, scratch, memory);
}

template <class D>
void launch_draws(const char* launcher, const HeadsBackwardOp<D>& op, const Scratch& scratch,
                  cudaStream_t stream) {
    const HeadsView& heads = op.heads;
    // ⌈2·stride/8⌉ = ⌈stride/4⌉: a column of tiles for every four elements.
    const TileGrid grid = make_tile_grid(heads.examples, 2 * heads.stride, kColumns);
    const std::size_t blocks = static_cast<std::size_t>(grid.row_tiles) * grid.col_tiles;
    require(blocks <= std::numeric_limits<int>::max(), launcher, "the array is too large");
    const ScratchSize size = scratch_size(heads.examples, 2 * heads.stride);
    require(scratch.partials_size >= size.partials && scratch.tickets_size >= size.tickets,
            launcher, "scratch is smaller than scratch_size says");
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kTileThreads),
                            sizeof(DrawsMemory)};
    launch(launcher, heads_draws_backward_kernel<D>, shape, stream, op, grid, scratch);
}

}  // namespace

void reparameterize_backward(const HeadsView& heads, const EpsilonSource& source,
                             const LatentGradient& gradient, Reals d_product, float* d_mu_bias,
                             float* d_logvar_bias, const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "reparameterize_backward";
    require_heads(heads, kLauncher);
    if (heads.examples == 0) {
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(heads.latent);
        if (bytes == 0) return;
        cuda_check(cudaMemsetAsync(d_mu_bias, 0, bytes, stream), kLauncher);
        cuda_check(cudaMemsetAsync(d_logvar_bias, 0, bytes, stream), kLauncher);
        return;
    }
    if (heads.stride == 0) return;
    with_storage(kLauncher, {d_product}, [&](auto element) {
        using D = decltype(element);
        const HeadsBackwardOp<D> op{heads,     source,       gradient, d_product.of<D>(),
                                    d_mu_bias, d_logvar_bias};
        if (heads.samples >= kManyDraws) return launch_draws(kLauncher, op, scratch, stream);
        const bool wide = heads.stride % 4 == 0 && aligned_to_four(heads.product, op.d_product);
        launch_tiles(kLauncher, op, heads.examples, 2 * heads.stride, wide, scratch, stream);
    });
}

}  // namespace vae::kernels
