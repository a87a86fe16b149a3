#include "kernels/cholesky_posterior.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

// The latent spaces of a small and of a larger network, and many draws of few examples.
void latent_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "latent", "samples"});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark->Args({128, 20, 1})->Args({1000, 50, 1})->Args({20, 50, 50})->Args({512, 256, 1});
}

// All heads of one batch, without padding. What stands below the diagonal is zero, so that the
// solution with the Cholesky factor stays finite.
struct Heads {
    explicit Heads(benchmark::State& state)
        : extent(state),
          samples(static_cast<int>(state.range(2))),
          tril_size(kernels::tril_size(extent.cols)),
          product(extent.height() * pitch()),
          bias(random_buffer(extent.width())),
          tril_bias(static_cast<std::size_t>(tril_size)),
          index(row_index(extent.height())),
          draws(extent.size() * static_cast<std::size_t>(samples)),
          epsilon(draws),
          z(draws),
          view{{product.data(), bias.data(), bias.data(), extent.rows, samples, extent.cols,
                extent.cols, -10.0f, 10.0f},
               tril_bias.data(),
               tril_size},
          source{{}, index.data(), 0} {}

    std::size_t pitch() const { return 2 * extent.width() + static_cast<std::size_t>(tril_size); }
    // Products of L and a vector.
    std::size_t products() const {
        return extent.height() * static_cast<std::size_t>(samples) *
               static_cast<std::size_t>(tril_size);
    }

    Extent extent;
    int samples;
    int tril_size;
    DeviceBuffer<float> product;
    DeviceBuffer<float> bias;
    DeviceBuffer<float> tril_bias;
    DeviceBuffer<std::uint32_t> index;
    std::size_t draws;  // elements of z
    DeviceBuffer<float> epsilon;
    DeviceBuffer<float> z;
    kernels::CholeskyHeads view;
    kernels::EpsilonSource source;
};

// Also with a copy of z in bf16.
void forward(GpuBench& bench, benchmark::State& state, bool is_copied) {
    const Heads heads(state);
    const DeviceBuffer<float> kl(heads.extent.height());
    const DeviceBuffer<kernels::Bf16> rounded_z(is_copied ? heads.draws : 0);
    const kernels::CholeskyDraws draws{.kl = kl.data(),
                                       .epsilon = heads.epsilon.data(),
                                       .z = heads.z.data(),
                                       .rounded_z = is_copied ? rounded_z.data() : nullptr};
    bench.measure(
        state, heads.product.bytes() + 2 * heads.z.bytes() + rounded_z.bytes(), heads.products(),
        [&](cudaStream_t stream) { cholesky_forward(heads.view, heads.source, draws, stream); });
}

BENCHMARK_DEFINE_F(GpuBench, cholesky_forward)(benchmark::State& state) {
    forward(*this, state, false);
}
BENCHMARK_REGISTER_F(GpuBench, cholesky_forward)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, cholesky_forward_bf16)(benchmark::State& state) {
    forward(*this, state, true);
}
BENCHMARK_REGISTER_F(GpuBench, cholesky_forward_bf16)->Apply(latent_sizes);

// is_weighted: with the solution that importance weights need. D is float or Bf16, as d_product is
// stored.
template <class D>
void backward(GpuBench& bench, benchmark::State& state, bool is_weighted) {
    const Heads heads(state);
    const auto d_z = random_buffer(heads.draws);
    const auto weights = random_buffer(heads.draws / heads.extent.width());
    const DeviceBuffer<D> d_product(heads.product.size());
    const DeviceBuffer<float> d_bias(heads.pitch());
    const DeviceBuffer<float> draws(heads.draws);
    const ScratchBuffer scratch(heads.extent.rows, static_cast<int>(heads.pitch()));
    kernels::LatentGradient gradient{.d_z = d_z.data(), .kl_scale = 0.01f};
    if (is_weighted) gradient.ratio = gradient.score = weights.data();
    float* const d_logvar_bias = d_bias.data() + heads.extent.width();
    const kernels::CholeskyGradients to{d_product.data(), d_bias.data(), d_logvar_bias,
                                        d_logvar_bias + heads.extent.width(), draws.data()};
    bench.measure(state, heads.product.bytes() + d_product.bytes() + 3 * heads.z.bytes(),
                  heads.products(), [&](cudaStream_t stream) {
                      cholesky_backward(heads.view, {heads.epsilon.data(), heads.z.data()},
                                        gradient, to, scratch.get(), stream);
                  });
}

BENCHMARK_DEFINE_F(GpuBench, cholesky_backward)(benchmark::State& state) {
    backward<float>(*this, state, false);
}
BENCHMARK_REGISTER_F(GpuBench, cholesky_backward)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, cholesky_backward_bf16)(benchmark::State& state) {
    backward<kernels::Bf16>(*this, state, false);
}
BENCHMARK_REGISTER_F(GpuBench, cholesky_backward_bf16)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, cholesky_backward_weighted)(benchmark::State& state) {
    backward<float>(*this, state, true);
}
BENCHMARK_REGISTER_F(GpuBench, cholesky_backward_weighted)->Apply(latent_sizes);

}  // namespace
}  // namespace vae::bench
