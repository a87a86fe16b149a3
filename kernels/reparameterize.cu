#include "kernels/reparameterize.h"

#include <limits>

#include "kernels/philox.cuh"
#include "kernels/step_state.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kForwardWarps = 4;
constexpr unsigned kForwardThreads = kForwardWarps * kWarpSize;

// Not fmin and fmax, which would drop a NaN.
__device__ inline float clamp(float value, float low, float high) {
    if (value < low) return low;
    return value > high ? high : value;
}

// Element j of a draw: everything but the sums. Adds its parts of 2·kl and 2·log_ratio.
__device__ inline void forward_element(const HeadsView& heads, const Draws& draws,
                                       std::size_t example, std::size_t row, unsigned j,
                                       float epsilon, float& kl, float& log_ratio) {
    const std::size_t latent = static_cast<std::size_t>(heads.latent);
    const float* const product =
        heads.product + example * 2 * static_cast<std::size_t>(heads.stride);
    const float mu = product[j] + heads.mu_bias[j];
    const float logvar =
        clamp(product[static_cast<unsigned>(heads.stride) + j] + heads.logvar_bias[j],
              heads.logvar_min, heads.logvar_max);
    const float half = 0.5f * logvar;
    const float z = fmaf(expf(half), epsilon, mu);
    if (row == example * static_cast<std::size_t>(heads.samples)) {  // the example's first draw
        if (draws.mu != nullptr) draws.mu[example * latent + j] = mu;
        if (draws.logvar != nullptr) draws.logvar[example * latent + j] = logvar;
    }
    if (draws.epsilon != nullptr) draws.epsilon[row * latent + j] = epsilon;
    draws.z[row * latent + j] = z;
    if (draws.rounded_z != nullptr) store_floats<1>(draws.rounded_z + row * latent + j, {{z}});
    kl += mu * mu + (expm1f(logvar) - logvar);
    log_ratio += (mu + expm1f(half) * epsilon) * (z + epsilon) - logvar;
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

    // One latent element of one example: what its draws need of it, and the sum that they add to.
    struct Element {
        float mu;
        float sigma;
        float inverse_sigma;
        float d;
    };

    __device__ void add_draw(bool is_logvar, std::size_t r, unsigned j, float epsilon,
                             Element& element) const {
        float d = gradient.d_z[r * latent() + j];
        if (gradient.path != nullptr) d *= gradient.path[r];
        if (gradient.ratio != nullptr) {
            const float minus_prior_score = gradient.prior_score != nullptr
                                                ? -gradient.prior_score[r * latent() + j]
                                                : element.mu + element.sigma * epsilon;
            d += gradient.scale * gradient.ratio[r] *
                 (minus_prior_score - epsilon * element.inverse_sigma);
        }
        element.d += is_logvar ? d * element.sigma * epsilon : d;
        if (gradient.score == nullptr) return;
        const float score = gradient.scale * gradient.score[r];
        element.d +=
            score * (is_logvar ? epsilon * epsilon - 1.0f : epsilon * element.inverse_sigma);
    }

    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&column_sums)[V]) const {
        const bool is_logvar = columns.is_logvar;
        const unsigned j = columns.first;
        Element elements[V] = {};
        bool is_outside[V] = {};
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            const float mu = loaded.mu.v[i] + columns.mu_bias.v[i];
            const float unclamped = loaded.logvar.v[i] + columns.logvar_bias.v[i];
            is_outside[i] = unclamped < heads.logvar_min || unclamped > heads.logvar_max;
            const float logvar = clamp(unclamped, heads.logvar_min, heads.logvar_max);
            const float kl_part = is_logvar ? expm1f(logvar) : mu;
            float kl_scale = columns.kl_scale;
            if (gradient.kl_mask != nullptr && j + i < latent())
                kl_scale *= gradient.kl_mask[j + i];
            elements[i] = {mu, expf(0.5f * logvar), expf(-0.5f * logvar), kl_scale * kl_part};
        }
        // The mean's gradient through z alone needs no noise.
        const bool needs_noise =
            j < latent() && (is_logvar || gradient.ratio != nullptr || gradient.score != nullptr);
        const unsigned samples = static_cast<unsigned>(heads.samples);
        NoiseStream noise = at_its_step(source.stream);
        for (unsigned s = 0; s < samples; ++s, ++noise.sample) {
            float4 epsilon = {};
            if (needs_noise) epsilon = normal4(noise, source.first_index + loaded.index, j / 4);
            const std::size_t r = static_cast<std::size_t>(row) * samples + s;
#pragma unroll
            for (unsigned i = 0; i < V; ++i) {
                if (j + i < latent()) {
                    add_draw(is_logvar, r, j + i, member(epsilon, V == 4 ? i : j % 4), elements[i]);
                }
            }
        }
        Pack<V> d = {};
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            if (j + i >= latent()) continue;
            d.v[i] = !is_logvar ? elements[i].d : is_outside[i] ? 0.0f : 0.5f * elements[i].d;
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

void require_heads(const HeadsView& heads, const char* launcher) {
    require_shape(heads.examples, heads.latent, launcher);
    require(heads.samples >= 1, launcher, "samples must be at least 1");
    require(heads.stride >= heads.latent, launcher, "stride must not be less than latent");
    require(heads.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
    require(heads.logvar_min <= heads.logvar_max, launcher,
            "logvar_min must not be greater than logvar_max");
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
        const bool wide = heads.stride % 4 == 0 && aligned_to_four(heads.product, op.d_product);
        launch_tiles(kLauncher, op, heads.examples, 2 * heads.stride, wide, scratch, stream);
    });
}

}  // namespace vae::kernels
