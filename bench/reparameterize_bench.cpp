#include "kernels/reparameterize.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

// The latent spaces of a small and of a large network, and many draws of few examples.
void latent_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "latent", "samples"});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark->Args({128, 20, 1})->Args({1000, 50, 1})->Args({20, 50, 50})->Args({8192, 256, 1});
}

// Both heads of one batch, without padding.
struct Heads {
    explicit Heads(const Extent& extent, int samples)
        : product(random_buffer(2 * extent.size())),
          bias(random_buffer(extent.width())),
          index(row_index(extent.height())),
          draws(extent.size() * static_cast<std::size_t>(samples)),
          view{product.data(), bias.data(), bias.data(), extent.rows, samples,
               extent.cols,    extent.cols, -10.0f,      10.0f},
          source{{}, index.data(), 0} {}

    DeviceBuffer<float> product;
    DeviceBuffer<float> bias;
    DeviceBuffer<std::uint32_t> index;
    std::size_t draws;  // elements of z
    kernels::HeadsView view;
    kernels::EpsilonSource source;
};

// Also with a copy of z in bf16.
void forward(GpuBench& bench, benchmark::State& state, bool is_copied) {
    const Extent extent(state);
    const Heads heads(extent, static_cast<int>(state.range(2)));
    const DeviceBuffer<float> z(heads.draws);
    const DeviceBuffer<float> kl(extent.height());
    const DeviceBuffer<kernels::Bf16> rounded_z(is_copied ? heads.draws : 0);
    const kernels::Draws draws{
        .kl = kl.data(), .z = z.data(), .rounded_z = is_copied ? rounded_z.data() : nullptr};
    bench.measure(state, heads.product.bytes() + z.bytes() + rounded_z.bytes(), heads.draws,
                  [&](cudaStream_t stream) {
                      reparameterize_forward(heads.view, heads.source, draws, stream);
                  });
}

BENCHMARK_DEFINE_F(GpuBench, reparameterize_forward)(benchmark::State& state) {
    forward(*this, state, false);
}
BENCHMARK_REGISTER_F(GpuBench, reparameterize_forward)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, reparameterize_forward_bf16)(benchmark::State& state) {
    forward(*this, state, true);
}
BENCHMARK_REGISTER_F(GpuBench, reparameterize_forward_bf16)->Apply(latent_sizes);

// D is float or Bf16, as d_product is stored.
template <class D>
void backward(GpuBench& bench, benchmark::State& state) {
    const Extent extent(state);
    const Heads heads(extent, static_cast<int>(state.range(2)));
    const auto d_z = random_buffer(heads.draws);
    const DeviceBuffer<D> d_product(2 * extent.size());
    const DeviceBuffer<float> d_bias(2 * extent.width());
    const ScratchBuffer scratch(extent.rows, 2 * extent.cols);
    // Few draws of an example are read for mu and for log-variance, many once for both.
    const std::size_t reads = heads.view.samples < kernels::kManyDraws ? 2 : 1;
    const std::size_t bytes = reads * (heads.product.bytes() + d_z.bytes()) + d_product.bytes();
    const kernels::LatentGradient gradient{.d_z = d_z.data(), .kl_scale = 0.01f};
    bench.measure(state, bytes, heads.draws, [&](cudaStream_t stream) {
        reparameterize_backward(heads.view, heads.source, gradient, d_product.data(), d_bias.data(),
                                d_bias.data() + extent.width(), scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, reparameterize_backward)(benchmark::State& state) {
    backward<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, reparameterize_backward)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, reparameterize_backward_bf16)(benchmark::State& state) {
    backward<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, reparameterize_backward_bf16)->Apply(latent_sizes);

}  // namespace
}  // namespace vae::bench
