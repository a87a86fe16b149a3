#include "kernels/reparameterize.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

// The latent spaces of a small and of a large network.
void latent_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "latent"})->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark->Args({128, 20})->Args({1000, 50})->Args({8192, 256});
}

// Both heads of one batch, without padding.
struct Heads {
    explicit Heads(const Extent& extent)
        : product(random_buffer(2 * extent.size())),
          bias(random_buffer(extent.width())),
          index(row_index(extent.height())),
          view{product.data(), bias.data(), bias.data(), extent.rows,
               extent.cols,    extent.cols, -10.0f,      10.0f} {}

    DeviceBuffer<float> product;
    DeviceBuffer<float> bias;
    DeviceBuffer<std::uint32_t> index;
    kernels::HeadsView view;
};

BENCHMARK_DEFINE_F(GpuBench, reparameterize_forward)(benchmark::State& state) {
    const Extent extent(state);
    const Heads heads(extent);
    const DeviceBuffer<float> z(extent.size());
    const DeviceBuffer<float> kl(extent.height());
    measure(state, heads.product.bytes() + z.bytes(), extent.size(), [&](cudaStream_t stream) {
        reparameterize_forward(heads.view, {}, heads.index.data(), 0, nullptr, nullptr, nullptr,
                               z.data(), kl.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, reparameterize_forward)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, reparameterize_backward)(benchmark::State& state) {
    const Extent extent(state);
    const Heads heads(extent);
    const auto d_z = random_buffer(extent.size());
    const DeviceBuffer<float> d_product(2 * extent.size());
    const DeviceBuffer<float> d_bias(2 * extent.width());
    const ScratchBuffer scratch(extent.rows, 2 * extent.cols);
    const std::size_t bytes = heads.product.bytes() + d_product.bytes() + 2 * d_z.bytes();
    measure(state, bytes, extent.size(), [&](cudaStream_t stream) {
        reparameterize_backward(heads.view, {}, heads.index.data(), 0, d_z.data(), 0.01f,
                                d_product.data(), d_bias.data(), d_bias.data() + extent.width(),
                                scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, reparameterize_backward)->Apply(latent_sizes);

}  // namespace
}  // namespace vae::bench
