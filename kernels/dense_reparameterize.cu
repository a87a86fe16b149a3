#include "kernels/dense_reparameterize.h"

#include "kernels/dense_product.cuh"
#include "kernels/philox.cuh"
#include "kernels/reparameterize.cuh"
#include "kernels/step_state.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// The noise of element j of an example. Each of four neighbours draws the words that they share: a
// thread has elements of one column, far apart, and there are few of them.
__device__ inline float epsilon_of(const EpsilonSource& source, int example, int j) {
    const std::uint32_t address = source.first_index + source.index[example];
    const auto element = static_cast<unsigned>(j);
    return member(normal4(at_its_step(source.stream), address, element / 4), element % 4);
}

struct HeadsEpilogue : PlainEpilogue {
    static constexpr int kSums = 2;  // of mu and log-variance
    static constexpr bool kRowSums = true;
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
    __device__ Loaded load(int row, int column) const {
        return {heads.mu_bias[column], heads.logvar_bias[column], epsilon_of(source, row, column)};
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
    __device__ Loaded load(int row, int column) const {
        if (column >= heads.latent) return {};  // padding
        const float* const mu = heads.product + offset(row, column);
        return {element_of(heads, mu[0] + heads.mu_bias[column],
                           mu[stride()] + heads.logvar_bias[column]),
                epsilon_of(source, row, column), static_cast<float>(with_beta(kl.scale, kl.state))};
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
