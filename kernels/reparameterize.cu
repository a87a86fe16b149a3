#include "kernels/reparameterize.h"

#include <limits>

#include "kernels/philox.cuh"
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

struct ForwardArrays {
    const std::uint32_t* index;
    std::uint32_t first_index;
    float* mu;
    float* logvar;
    float* epsilon;
    float* z;
    float* kl;
};

// Element j of a row: everything but the sum. Returns its part of 2·kl.
__device__ inline float forward_element(const HeadsView& heads, const ForwardArrays& arrays,
                                        std::size_t row, unsigned j, float epsilon) {
    const float* const product = heads.product + row * 2 * static_cast<std::size_t>(heads.stride);
    const float mu = product[j] + heads.mu_bias[j];
    const float logvar =
        clamp(product[static_cast<unsigned>(heads.stride) + j] + heads.logvar_bias[j],
              heads.logvar_min, heads.logvar_max);
    const std::size_t offset = row * static_cast<std::size_t>(heads.latent) + j;
    if (arrays.mu != nullptr) arrays.mu[offset] = mu;
    if (arrays.logvar != nullptr) arrays.logvar[offset] = logvar;
    if (arrays.epsilon != nullptr) arrays.epsilon[offset] = epsilon;
    arrays.z[offset] = mu + expf(0.5f * logvar) * epsilon;
    return mu * mu + (expm1f(logvar) - logvar);
}

// A warp a row; a lane takes four neighboring elements, which share one block of random words.
__global__ void __launch_bounds__(kForwardThreads)
    reparameterize_forward_kernel(const HeadsView heads, const NoiseStream noise,
                                  const ForwardArrays arrays) {
    const std::size_t row =
        static_cast<std::size_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarpSize;
    if (row >= static_cast<std::size_t>(heads.rows)) return;  // the whole warp
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned latent = static_cast<unsigned>(heads.latent);
    const std::uint32_t example = arrays.first_index + arrays.index[row];
    float sum = 0;
    for (unsigned j = 4 * lane; j < latent; j += 4 * kWarpSize) {
        const float4 epsilon = normal4(noise, example, j / 4);
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            if (j + i < latent) {
                sum += forward_element(heads, arrays, row, j + i, member(epsilon, i));
            }
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) arrays.kl[row] = 0.5f * sum;
}

// Over the columns [0, 2·stride) of d_product: mu's half, then log-variance's.
struct HeadsBackwardOp {
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = true;
    // With V = 4 all of a thread's columns lie in one half, and `first` is a multiple of 4.
    template <int V>
    struct Columns {
        bool is_logvar;
        unsigned first;  // latent element of the first column
        Pack<V> bias;
    };
    template <int V>
    struct Loaded {
        Pack<V> product;
        Pack<V> d_z;
        std::uint32_t index;
    };

    HeadsView heads;
    NoiseStream noise;
    const std::uint32_t* index;
    std::uint32_t first_index;
    const float* d_z;
    float kl_scale;
    float* d_product;
    float* d_mu_bias;
    float* d_logvar_bias;

    __device__ unsigned latent() const { return static_cast<unsigned>(heads.latent); }
    __device__ unsigned stride() const { return static_cast<unsigned>(heads.stride); }

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        Columns<V> result = {};
        result.is_logvar = col >= stride();
        result.first = result.is_logvar ? col - stride() : col;
        const float* const bias = result.is_logvar ? heads.logvar_bias : heads.mu_bias;
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            if (result.first + i < latent()) result.bias.v[i] = bias[result.first + i];
        }
        return result;
    }

    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>& columns) const {
        Loaded<V> result = {};
        result.product =
            load_pack<V>(heads.product + static_cast<std::size_t>(row) * 2 * stride() + col);
        result.index = index[row];
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            const unsigned j = columns.first + i;
            if (j < latent()) result.d_z.v[i] = d_z[static_cast<std::size_t>(row) * latent() + j];
        }
        return result;
    }

    __device__ float d_logvar(float unclamped, float epsilon, float d) const {
        if (unclamped < heads.logvar_min || unclamped > heads.logvar_max) return 0.0f;
        return 0.5f * (d * epsilon * expf(0.5f * unclamped) + kl_scale * expm1f(unclamped));
    }

    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&column_sums)[V]) const {
        Pack<V> d = {};
        const unsigned j = columns.first;
        float4 epsilon = {};
        if (columns.is_logvar && j < latent()) {
            epsilon = normal4(noise, first_index + loaded.index, j / 4);
        }
#pragma unroll
        for (unsigned i = 0; i < V; ++i) {
            if (j + i >= latent()) continue;
            const float pre = loaded.product.v[i] + columns.bias.v[i];
            d.v[i] = columns.is_logvar
                         ? d_logvar(pre, member(epsilon, V == 4 ? i : j % 4), loaded.d_z.v[i])
                         : loaded.d_z.v[i] + kl_scale * pre;
            column_sums[i] += d.v[i];
        }
        store_pack<V>(d_product + static_cast<std::size_t>(row) * 2 * stride() + col, d);
    }

    __device__ void store_column(unsigned col, double sum) const {
        const bool is_logvar = col >= stride();
        const unsigned j = is_logvar ? col - stride() : col;
        if (j < latent()) (is_logvar ? d_logvar_bias : d_mu_bias)[j] = static_cast<float>(sum);
    }
};

void require_heads(const HeadsView& heads, const char* launcher) {
    require_shape(heads.rows, heads.latent, launcher);
    require(heads.stride >= heads.latent, launcher, "stride must not be less than latent");
    require(heads.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
    require(heads.logvar_min <= heads.logvar_max, launcher,
            "logvar_min must not be greater than logvar_max");
}

}  // namespace

void reparameterize_forward(const HeadsView& heads, const NoiseStream& noise,
                            const std::uint32_t* index, std::uint32_t first_index, float* mu,
                            float* logvar, float* epsilon, float* z, float* kl,
                            cudaStream_t stream) {
    constexpr const char* kLauncher = "reparameterize_forward";
    require_heads(heads, kLauncher);
    if (heads.rows == 0) return;
    const ForwardArrays arrays{index, first_index, mu, logvar, epsilon, z, kl};
    const LaunchShape shape{
        dim3(static_cast<unsigned>(tiles_of(static_cast<std::size_t>(heads.rows), kForwardWarps))),
        dim3(kForwardThreads)};
    launch(kLauncher, reparameterize_forward_kernel, shape, stream, heads, noise, arrays);
}

void reparameterize_backward(const HeadsView& heads, const NoiseStream& noise,
                             const std::uint32_t* index, std::uint32_t first_index,
                             const float* d_z, float kl_scale, float* d_product, float* d_mu_bias,
                             float* d_logvar_bias, const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "reparameterize_backward";
    require_heads(heads, kLauncher);
    if (heads.rows == 0) {
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(heads.latent);
        if (bytes == 0) return;
        cuda_check(cudaMemsetAsync(d_mu_bias, 0, bytes, stream), kLauncher);
        cuda_check(cudaMemsetAsync(d_logvar_bias, 0, bytes, stream), kLauncher);
        return;
    }
    if (heads.stride == 0) return;
    const HeadsBackwardOp op{heads,    noise,     index,     first_index,  d_z,
                             kl_scale, d_product, d_mu_bias, d_logvar_bias};
    const bool wide = heads.stride % 4 == 0 && aligned_to_16(heads.product, d_product);
    launch_tiles(kLauncher, op, heads.rows, 2 * heads.stride, wide, scratch, stream);
}

}  // namespace vae::kernels
