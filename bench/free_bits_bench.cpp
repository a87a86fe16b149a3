#include "kernels/free_bits.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

// The latent spaces of a small and of a large network.
void latent_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "latent"});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark->Args({128, 20})->Args({1000, 50})->Args({8192, 256});
}

BENCHMARK_DEFINE_F(GpuBench, free_bits_per_dimension)(benchmark::State& state) {
    const Extent extent(state);
    const auto product = random_buffer(2 * extent.size());
    const auto bias = random_buffer(extent.width());
    const DeviceBuffer<float> kl_mask(extent.width());
    const DeviceBuffer<float> loss_kl(extent.height());
    const ScratchBuffer scratch(extent.rows, extent.cols);
    const kernels::HeadsView heads{.product = product.data(),
                                   .mu_bias = bias.data(),
                                   .logvar_bias = bias.data(),
                                   .examples = extent.rows,
                                   .latent = extent.cols,
                                   .stride = extent.cols,
                                   .logvar_min = -10.0f,
                                   .logvar_max = 10.0f};
    measure(state, 2 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        free_bits_per_dimension(heads, 0.5f, kl_mask.data(), loss_kl.data(), scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, free_bits_per_dimension)->Apply(latent_sizes);

BENCHMARK_DEFINE_F(GpuBench, free_bits_in_total)(benchmark::State& state) {
    const Extent extent(state);
    const auto kl = random_buffer(extent.height());
    const DeviceBuffer<float> kl_mask(extent.width());
    const DeviceBuffer<float> loss_kl(extent.height());
    measure(state, 3 * kl.bytes(), extent.height(), [&](cudaStream_t stream) {
        kernels::free_bits_in_total(kl.data(), extent.rows, extent.cols, 0.5f, kl_mask.data(),
                                    loss_kl.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, free_bits_in_total)->Apply(latent_sizes);

}  // namespace
}  // namespace vae::bench
