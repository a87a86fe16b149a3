#include "kernels/dense_reparameterize.h"

#include "kernels/dense_launch.cuh"
#include "kernels/philox.cuh"
#include "kernels/reparameterize.cuh"
#include "kernels/step_state.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// The noise of a thread's elements, by whole warps. The lanes of four neighbouring columns share
// words: each draws those of one of their rows, and they exchange what they drew.
template <int kSums>
__device__ void draw(const EpsilonSource& source, const DenseCells<kSums>& cells,
                     float (&epsilon)[DenseCells<kSums>::kElements]) {
    constexpr int kElements = DenseCells<kSums>::kElements;
    static_assert(kElements <= 4);
    const unsigned lane = threadIdx.x % 4;
    const unsigned turn = lane % kElements;
    int example = cells.row(static_cast<int>(turn));
    if (example >= cells.result.rows) example = 0;  // drawn for nobody
    const std::uint32_t address = source.first_index + source.index[example];
    const auto block = static_cast<unsigned>(cells.column()) / 4;
    const float4 own = normal4(at_its_step(source.stream), address, block);
#pragma unroll
    for (unsigned i = 0; i < kElements; ++i) {
        // Of row i, from the lane that drew it: member `lane` of its four.
        const float x = __shfl_sync(kFullWarp, own.x, static_cast<int>(i), 4);
        const float y = __shfl_sync(kFullWarp, own.y, static_cast<int>(i), 4);
        const float z = __shfl_sync(kFullWarp, own.z, static_cast<int>(i), 4);
        const float w = __shfl_sync(kFullWarp, own.w, static_cast<int>(i), 4);
        epsilon[i] = member({x, y, z, w}, lane);
    }
}

struct HeadsEpilogue : PlainEpilogue {
    static constexpr int kSums = 2;  // of mu and log-variance
    static constexpr bool kRowSums = true;
    static constexpr bool kLoadsTogether = true;
    struct Loaded {
        float mu_bias;
        float logvar_bias;
        float epsilon;
    };

    HeadsView heads;
    EpsilonSource source;
    float* product;
    Draws draws;
    Scratch scratch;

    // Drawn while the factors are on their way.
    template <int kElements>
    __device__ void load(const DenseCells<kSums>& cells, Loaded (&loaded)[kElements]) const {
        float epsilon[kElements];
        draw(source, cells, epsilon);
        const int column = cells.column();
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            if (!cells.is_inside(i)) continue;
            loaded[i] = {heads.mu_bias[column], heads.logvar_bias[column], epsilon[i]};
        }
    }
    __device__ float apply(int row, int column, const float (&sums)[2],
                           const Loaded& loaded) const {
        const auto r = static_cast<std::size_t>(row);
        const auto j = static_cast<std::size_t>(column);
        const auto stride = static_cast<std::size_t>(heads.stride);
        const std::size_t at = r * static_cast<std::size_t>(heads.latent) + j;
        product[r * 2 * stride + j] = sums[0];
        product[r * 2 * stride + stride + j] = sums[1];
        const float mu = sums[0] + loaded.mu_bias;
        const float logvar = clamped_logvar(heads, sums[1] + loaded.logvar_bias);
        const float z = drawn(mu, logvar, loaded.epsilon);
        draws.z[at] = z;
        if (draws.rounded_z != nullptr) store_floats<1>(draws.rounded_z + at, {{z}});
        if (draws.mu != nullptr) draws.mu[at] = mu;
        if (draws.logvar != nullptr) draws.logvar[at] = logvar;
        if (draws.epsilon != nullptr) draws.epsilon[at] = loaded.epsilon;
        return twice_kl(mu, logvar);
    }
    __device__ void store_row(int row, double sum) const {
        if (draws.kl != nullptr) draws.kl[row] = static_cast<float>(0.5 * sum);
    }
};

// d_heads [rows, 2·stride], of each element of d_z [rows, latent] in the part of mu and in that of
// log-variance.
template <class T>
struct HeadsBackwardEpilogue : PlainEpilogue {
    static constexpr bool kLoadsTogether = true;
    struct Loaded {
        Element element;
        float epsilon;
        float kl_scale;
    };

    HeadsView heads;
    EpsilonSource source;
    KlGradient kl;
    T* d_heads;

    __device__ std::size_t stride() const { return static_cast<std::size_t>(heads.stride); }
    __device__ std::size_t offset(int row, int column) const {
        return static_cast<std::size_t>(row) * 2 * stride() + static_cast<std::size_t>(column);
    }
    template <int kElements>
    __device__ void load(const DenseCells<kSums>& cells, Loaded (&loaded)[kElements]) const {
        float epsilon[kElements];
        draw(source, cells, epsilon);
        const int column = cells.column();
        const auto kl_scale = static_cast<float>(with_beta(kl.scale, kl.state));
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
            loaded[i] = {};
            if (!cells.is_inside(i) || column >= heads.latent) continue;  // padding, else
            const float* const mu = heads.product + offset(cells.row(i), column);
            loaded[i] = {element_of(heads, mu[0] + heads.mu_bias[column],
                                    mu[stride()] + heads.logvar_bias[column]),
                         epsilon[i], kl_scale};
        }
    }
    __device__ float part(bool is_logvar, int column, float d_z, const Loaded& loaded) const {
        if (column >= heads.latent) return 0;
        const float of_kl =
            kl_part({}, loaded.kl_scale, loaded.element, is_logvar, static_cast<unsigned>(column));
        return finished(loaded.element, is_logvar,
                        of_kl + path_part(loaded.element, is_logvar, d_z, loaded.epsilon));
    }
    __device__ void apply(int row, int column, const float (&sums)[1], const Loaded& loaded) const {
        T* const to = d_heads + offset(row, column);
        store_floats<1>(to, Pack<1>{{part(false, column, sums[0], loaded)}});
        store_floats<1>(to + stride(), Pack<1>{{part(true, column, sums[0], loaded)}});
    }
};

void require_one_draw(const char* launcher, const HeadsView& heads) {
    require_heads(heads, launcher);
    require(heads.samples == 1, launcher, "there is one draw an example");
    require(heads.latent >= 1, launcher, "there is at least one dimension");
}

}  // namespace

void dense_reparameterize(FloatFactors factors, int in, ConstReals h, ConstReals weight,
                          const HeadsView& heads, const EpsilonSource& source, float* product,
                          const Draws& draws, const Scratch& scratch, const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_reparameterize";
    require_one_draw(kLauncher, heads);
    require_dense(kLauncher, {heads.examples, in, heads.latent}, {h, weight});
    require(draws.log_ratio == nullptr, kLauncher, "there is no log-ratio");
    if (heads.examples == 0) return;
    with_factors(h.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        FactorMatrix<T> of_weight{weight.of<T>(), heads.latent, in};
        of_weight.stride = heads.stride;
        launch_dense<kind(), Order::outer_major, Order::outer_major>(
            kLauncher, {h.of<T>(), heads.examples, in}, of_weight, {heads.examples, heads.latent},
            HeadsEpilogue{{}, heads, source, product, draws, scratch}, stream);
    });
}

void dense_reparameterize_backward(FloatFactors factors, const DenseSize& size,
                                   ConstReals d_product, ConstReals weight, const HeadsView& heads,
                                   const EpsilonSource& source, const KlGradient& kl, Reals d_heads,
                                   const DenseStream& stream) {
    constexpr const char* kLauncher = "dense_reparameterize_backward";
    require_one_draw(kLauncher, heads);
    require_dense(kLauncher, size, {d_product, weight, d_heads});
    require(size.rows == heads.examples && size.in == heads.latent, kLauncher,
            "the layer is not of as many rows and latent dimensions");
    if (size.rows == 0) return;
    with_factors(d_product.storage, factors, [&](auto kind) {
        using T = FactorElement<kind()>;
        const HeadsBackwardEpilogue<T> epilogue{{}, heads, source, kl, d_heads.of<T>()};
        launch_dense<kind(), Order::outer_major, Order::depth_major>(
            kLauncher, {d_product.of<T>(), size.rows, size.out},
            {weight.of<T>(), size.out, size.in}, {size.rows, heads.stride}, epilogue, stream);
    });
}

}  // namespace vae::kernels
