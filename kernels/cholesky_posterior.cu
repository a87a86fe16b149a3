#include "kernels/cholesky_posterior.h"

#include <limits>

#include "kernels/functions.cuh"
#include "kernels/philox.cuh"
#include "kernels/step_state.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kWarps = 4;
constexpr unsigned kThreads = kWarps * kWarpSize;
constexpr float kLog2Pi = 1.8378770664093453f;

static_assert(2 * kWarps * kMostCholeskyLatent * sizeof(float) <= 48 * 1024,
              "two arrays of a draw for each warp");

__device__ inline std::size_t pitch_of(const CholeskyHeads& in) {
    return 2 * static_cast<std::size_t>(in.heads.stride) + static_cast<unsigned>(in.tril_stride);
}

// Where row i of tril begins.
__device__ inline unsigned row_start(unsigned i) {
    return i * (i - 1) / 2;
}

// One example's mu and L.
struct ExampleHeads {
    const CholeskyHeads& in;
    const float* product;

    __device__ ExampleHeads(const CholeskyHeads& heads, std::size_t example)
        : in(heads), product(heads.heads.product + example * pitch_of(heads)) {}

    __device__ float mu(unsigned i) const { return product[i] + in.heads.mu_bias[i]; }
    __device__ float logvar(unsigned i) const {
        return clamp(product[static_cast<unsigned>(in.heads.stride) + i] + in.heads.logvar_bias[i],
                     in.heads.logvar_min, in.heads.logvar_max);
    }
    __device__ float tril(unsigned k) const {
        return product[2 * static_cast<unsigned>(in.heads.stride) + k] + in.tril_bias[k];
    }
};

// A warp's draw: what its lanes share, and each lane's parts of the sums.
struct Draw {
    std::size_t example;
    std::size_t row;
    bool is_first;  // of its example
    unsigned lane;
    float twice_kl;
    float twice_log_ratio;
    float minus_twice_log_q;
};

// L's row i without the diagonal, times epsilon, in every lane.
__device__ inline float row_product(const ExampleHeads& heads, const CholeskyDraws& draws,
                                    const float* epsilon, unsigned i, Draw& draw) {
    const unsigned start = row_start(i);
    float sum = 0;
    for (unsigned j = draw.lane; j < i; j += kWarpSize) {
        const float l = heads.tril(start + j);
        sum += l * epsilon[j];
        if (!draw.is_first) continue;
        draw.twice_kl += l * l;
        if (draws.tril != nullptr) {
            draws.tril[draw.example * row_start(static_cast<unsigned>(heads.in.heads.latent)) +
                       start + j] = l;
        }
    }
    return warp_sum(sum);
}

// Element i of a draw. `below` is L's row without the diagonal, times epsilon.
__device__ inline void forward_element(const ExampleHeads& heads, const CholeskyDraws& draws,
                                       float epsilon, float below, unsigned i, Draw& draw) {
    const std::size_t latent = static_cast<std::size_t>(heads.in.heads.latent);
    const float mu = heads.mu(i);
    const float logvar = heads.logvar(i);
    const float half = 0.5f * logvar;
    // Without what is below the bits are those of a diagonal covariance.
    const float z = fmaf(expf(half), epsilon, mu) + below;
    if (draw.is_first) {
        if (draws.mu != nullptr) draws.mu[draw.example * latent + i] = mu;
        if (draws.logvar != nullptr) draws.logvar[draw.example * latent + i] = logvar;
    }
    draws.epsilon[draw.row * latent + i] = epsilon;
    draws.z[draw.row * latent + i] = z;
    if (draws.rounded_z != nullptr) {
        store_floats<1>(draws.rounded_z + draw.row * latent + i, {{z}});
    }
    draw.twice_kl += mu * mu + (expm1f(logvar) - logvar);
    draw.twice_log_ratio += (mu + (expm1f(half) * epsilon + below)) * (z + epsilon) - logvar;
    draw.minus_twice_log_q += epsilon * epsilon + (logvar + kLog2Pi);
}

__device__ inline void store_sums(const CholeskyDraws& draws, const Draw& draw) {
    if (draws.kl != nullptr && draw.is_first) {
        const float sum = warp_sum(draw.twice_kl);
        if (draw.lane == 0) draws.kl[draw.example] = 0.5f * sum;
    }
    if (draws.log_ratio != nullptr) {
        const float sum = warp_sum(draw.twice_log_ratio);
        if (draw.lane == 0) draws.log_ratio[draw.row] = 0.5f * sum;
    }
    if (draws.log_q != nullptr) {
        const float sum = warp_sum(draw.minus_twice_log_q);
        if (draw.lane == 0) draws.log_q[draw.row] = -0.5f * sum;
    }
}

// The draw's noise, by the whole warp, into shared memory: every row of L needs all before it.
__device__ inline void draw_noise(const CholeskyHeads& in, const EpsilonSource& source,
                                  const Draw& draw, float* epsilon) {
    const auto latent = static_cast<unsigned>(in.heads.latent);
    NoiseStream noise = at_its_step(source.stream);
    noise.sample += static_cast<unsigned>(draw.row % static_cast<std::size_t>(in.heads.samples));
    const std::uint32_t address = source.first_index + source.index[draw.example];
    for (unsigned j = 4 * draw.lane; j < latent; j += 4 * kWarpSize) {
        const float4 four = normal4(noise, address, j / 4);
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            if (j + i < latent) epsilon[j + i] = member(four, i);
        }
    }
    __syncwarp();
}

__global__ void __launch_bounds__(kThreads)
    cholesky_forward_kernel(const CholeskyHeads in, const EpsilonSource source,
                            const CholeskyDraws draws) {
    const unsigned warp = threadIdx.x / kWarpSize;
    const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kWarps + warp;
    const auto samples = static_cast<std::size_t>(in.heads.samples);
    if (row >= static_cast<std::size_t>(in.heads.examples) * samples) return;  // the whole warp
    const std::size_t example = row / samples;
    Draw draw{example, row, row == example * samples, threadIdx.x % kWarpSize, 0, 0, 0};
    const auto latent = static_cast<unsigned>(in.heads.latent);
    float* const epsilon = dynamic_shared<float>() + warp * latent;
    draw_noise(in, source, draw, epsilon);
    const ExampleHeads heads(in, example);
    for (unsigned first = 0; first < latent; first += kWarpSize) {
        const unsigned rows = latent - first < kWarpSize ? latent - first : kWarpSize;
        float below = 0;  // of the lane's own row
        for (unsigned k = 0; k < rows; ++k) {
            const float sum = row_product(heads, draws, epsilon, first + k, draw);
            if (k == draw.lane) below = sum;
        }
        const unsigned i = first + draw.lane;
        if (i < latent) forward_element(heads, draws, epsilon[i], below, i, draw);
    }
    store_sums(draws, draw);
}

// r becomes what solves with the diagonal alone: after it u_i = r_i·inverse_i.
__device__ inline void back_substitute(const ExampleHeads& heads, unsigned latent, unsigned lane,
                                       const float* inverse, float* r) {
    for (unsigned i = latent; i-- > 1;) {
        const float u = r[i] * inverse[i];
        for (unsigned j = lane; j < i; j += kWarpSize) r[j] -= heads.tril(row_start(i) + j) * u;
        __syncwarp();
    }
}

// g of one draw a warp.
__global__ void __launch_bounds__(kThreads)
    cholesky_draws_kernel(const CholeskyHeads in, const CholeskySaved saved,
                          const LatentGradient gradient, float* g) {
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned lane = threadIdx.x % kWarpSize;
    const std::size_t row = static_cast<std::size_t>(blockIdx.x) * kWarps + warp;
    const auto samples = static_cast<std::size_t>(in.heads.samples);
    if (row >= static_cast<std::size_t>(in.heads.examples) * samples) return;  // the whole warp
    const auto latent = static_cast<unsigned>(in.heads.latent);
    const std::size_t start = row * latent;
    float* const r = dynamic_shared<float>() + 2 * warp * latent;
    float* const inverse = r + latent;
    const ExampleHeads heads(in, row / samples);
    const float path = gradient.path != nullptr ? gradient.path[row] : 1.0f;
    const float ratio = gradient.ratio != nullptr ? gradient.scale * gradient.ratio[row] : 0.0f;
    const float score = gradient.score != nullptr ? gradient.scale * gradient.score[row] : 0.0f;
    // Where they are equal, as in all but DReG's and the score function's gradients, u cancels. It
    // takes a step for each dimension, and grows with them until it overflows.
    const bool needs_u = ratio != score;
    if (needs_u) {
        for (unsigned i = lane; i < latent; i += kWarpSize) {
            r[i] = saved.epsilon[start + i];
            inverse[i] = expf(-0.5f * heads.logvar(i));
        }
        __syncwarp();
        back_substitute(heads, latent, lane, inverse, r);
    }
    for (unsigned i = lane; i < latent; i += kWarpSize) {
        float sum = path * gradient.d_z[start + i];
        if (ratio != 0) {
            sum += ratio * (gradient.prior_score != nullptr ? -gradient.prior_score[start + i]
                                                            : saved.z[start + i]);
        }
        if (needs_u) sum += (score - ratio) * (r[i] * inverse[i]);
        g[start + i] = sum;
    }
}

enum class Block { mu, logvar, tril, padding };

// Over the columns of d_product, stored as D: mu's, log-variance's, tril's, each with its padding.
template <class D>
struct CholeskyBackwardOp {
    static constexpr unsigned kResidentBlocks = 2;  // four columns' places take 128 registers
    static constexpr bool kRowSums = false;
    static constexpr int kColumnSums = 1;
    template <int V>
    struct Columns {
        Block block[V];
        unsigned row[V];  // of L, and element of mu and log-variance
        unsigned col[V];  // of L
        float bias[V];
    };
    template <int V>
    using Loaded = Pack<V>;

    CholeskyHeads in;
    const float* epsilon;
    const float* g;
    LatentGradient gradient;
    CholeskyGradients to;
    D* d_product;

    __device__ unsigned latent() const { return static_cast<unsigned>(in.heads.latent); }
    __device__ unsigned stride() const { return static_cast<unsigned>(in.heads.stride); }

    template <int V>
    __device__ void find_column(unsigned col, Columns<V>& columns, int v) const {
        columns.block[v] = Block::padding;
        columns.row[v] = columns.col[v] = 0;
        columns.bias[v] = 0;
        if (col < 2 * stride()) {
            const bool is_mu = col < stride();
            const unsigned i = is_mu ? col : col - stride();
            if (i >= latent()) return;
            columns.block[v] = is_mu ? Block::mu : Block::logvar;
            columns.row[v] = columns.col[v] = i;
            columns.bias[v] = (is_mu ? in.heads.mu_bias : in.heads.logvar_bias)[i];
            return;
        }
        const unsigned k = col - 2 * stride();
        if (k >= row_start(latent())) return;
        // The largest i with i·(i−1)/2 <= k; the root may be off by one.
        auto i = static_cast<unsigned>(0.5f * (1.0f + sqrtf(1.0f + 8.0f * static_cast<float>(k))));
        while (row_start(i) > k) --i;
        while (row_start(i + 1) <= k) ++i;
        columns.block[v] = Block::tril;
        columns.row[v] = i;
        columns.col[v] = k - row_start(i);
        columns.bias[v] = in.tril_bias[k];
    }

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        Columns<V> result;
#pragma unroll
        for (int v = 0; v < V; ++v) find_column(col + static_cast<unsigned>(v), result, v);
        return result;
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        return load_pack<V>(in.heads.product + row * pitch_of(in) + col);
    }

    // The gradient of one element of the product.
    __device__ float element(unsigned example, Block block, unsigned i, unsigned j,
                             float value) const {
        if (block == Block::padding) return 0;
        const bool is_logvar = block == Block::logvar;
        const float logvar = clamp(value, in.heads.logvar_min, in.heads.logvar_max);
        const float sigma = is_logvar ? expf(0.5f * logvar) : 1.0f;
        const auto kl_scale = static_cast<float>(with_beta(gradient.kl_scale, gradient.state));
        float sum = kl_scale * (is_logvar ? expm1f(logvar) : value);
        if (gradient.kl_mask != nullptr) sum *= gradient.kl_mask[i];
        const auto samples = static_cast<unsigned>(in.heads.samples);
        std::size_t draw = static_cast<std::size_t>(example) * samples;
        for (unsigned s = 0; s < samples; ++s, ++draw) {
            const float own = g[draw * latent() + i];
            sum += block == Block::mu ? own : own * sigma * epsilon[draw * latent() + j];
            if (is_logvar && gradient.score != nullptr) {
                sum -= gradient.scale * gradient.score[draw];
            }
        }
        if (!is_logvar) return sum;
        return value < in.heads.logvar_min || value > in.heads.logvar_max ? 0.0f : 0.5f * sum;
    }

    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&column_sums)[V]) const {
        Pack<V> d;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            d.v[v] = element(row, columns.block[v], columns.row[v], columns.col[v],
                             loaded.v[v] + columns.bias[v]);
            column_sums[v] += d.v[v];
        }
        store_floats<V>(d_product + row * pitch_of(in) + col, d);
    }

    __device__ void store_column(unsigned col, double sum) const {
        const auto value = static_cast<float>(sum);
        if (col < stride()) {
            if (col < latent()) to.d_mu_bias[col] = value;
        } else if (col < 2 * stride()) {
            if (col - stride() < latent()) to.d_logvar_bias[col - stride()] = value;
        } else if (col - 2 * stride() < row_start(latent())) {
            to.d_tril_bias[col - 2 * stride()] = value;
        }
    }
};

void require_heads(const CholeskyHeads& in, const char* launcher) {
    const HeadsView& heads = in.heads;
    require_shape(heads.examples, heads.latent, launcher);
    require(heads.latent <= kMostCholeskyLatent, launcher, "latent is too large");
    require(heads.samples >= 1, launcher, "samples must be at least 1");
    require(heads.stride >= heads.latent, launcher, "stride must not be less than latent");
    require(in.tril_stride >= tril_size(heads.latent), launcher,
            "tril_stride must not be less than latent·(latent − 1)/2");
    require(heads.stride <= std::numeric_limits<int>::max() / 4 &&
                in.tril_stride <= std::numeric_limits<int>::max() / 2,
            launcher, "stride is too large");
    require(heads.logvar_min <= heads.logvar_max, launcher,
            "logvar_min must not be greater than logvar_max");
}

// Blocks of a warp a draw, with so many arrays of a draw in shared memory for each warp.
LaunchShape shape_of_draws(const HeadsView& heads, std::size_t arrays, const char* launcher) {
    const std::size_t rows = static_cast<std::size_t>(heads.examples) * heads.samples;
    const std::size_t blocks = tiles_of(rows, kWarps);
    require(blocks <= std::numeric_limits<int>::max(), launcher, "there are too many draws");
    return {dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
            arrays * kWarps * static_cast<std::size_t>(heads.latent) * sizeof(float)};
}

void zero(float* array, int size, cudaStream_t stream, const char* launcher) {
    if (size == 0) return;
    cuda_check(cudaMemsetAsync(array, 0, static_cast<std::size_t>(size) * sizeof(float), stream),
               launcher);
}

}  // namespace

void cholesky_forward(const CholeskyHeads& heads, const EpsilonSource& source,
                      const CholeskyDraws& draws, cudaStream_t stream) {
    constexpr const char* kLauncher = "cholesky_forward";
    require_heads(heads, kLauncher);
    if (heads.heads.examples == 0) return;
    launch(kLauncher, cholesky_forward_kernel, shape_of_draws(heads.heads, 1, kLauncher), stream,
           heads, source, draws);
}

void cholesky_backward(const CholeskyHeads& heads, const CholeskySaved& saved,
                       const LatentGradient& gradient, const CholeskyGradients& to,
                       const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "cholesky_backward";
    require_heads(heads, kLauncher);
    const HeadsView& view = heads.heads;
    if (view.examples == 0) {
        zero(to.d_mu_bias, view.latent, stream, kLauncher);
        zero(to.d_logvar_bias, view.latent, stream, kLauncher);
        zero(to.d_tril_bias, tril_size(view.latent), stream, kLauncher);
        return;
    }
    const int cols = 2 * view.stride + heads.tril_stride;
    if (cols == 0) return;
    const float* g = gradient.d_z;
    if (gradient.path != nullptr || gradient.ratio != nullptr || gradient.score != nullptr) {
        launch(kLauncher, cholesky_draws_kernel, shape_of_draws(view, 2, kLauncher), stream, heads,
               saved, gradient, to.draws);
        g = to.draws;
    }
    with_storage(kLauncher, {to.d_product}, [&](auto element) {
        using D = decltype(element);
        const CholeskyBackwardOp<D> op{heads, saved.epsilon, g, gradient, to, to.d_product.of<D>()};
        const bool wide = view.stride % 4 == 0 && heads.tril_stride % 4 == 0 &&
                          aligned_to_four(view.product, op.d_product);
        launch_tiles(kLauncher, op, view.examples, cols, wide, scratch, stream);
    });
}

}  // namespace vae::kernels
