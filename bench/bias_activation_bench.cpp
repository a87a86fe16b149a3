#include "kernels/bias_activation.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

using kernels::Activation;

void activation_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "cols", "activation"});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
    for (int activation = 0; activation <= static_cast<int>(Activation::silu); ++activation) {
        benchmark->Args({128, 400, activation});
        benchmark->Args({8192, 4096, activation});
    }
}

BENCHMARK_DEFINE_F(GpuBench, bias_activation_forward)(benchmark::State& state) {
    const Extent extent(state);
    const auto f = static_cast<Activation>(state.range(2));
    const auto product = random_buffer(extent.size());
    const auto bias = random_buffer(extent.width());
    const DeviceBuffer<float> h(extent.size());
    measure(state, product.bytes() + h.bytes(), extent.size(), [&](cudaStream_t stream) {
        bias_activation_forward(f, product.data(), bias.data(), extent.rows, extent.cols, h.data(),
                                stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, bias_activation_forward)->Apply(activation_sizes);

BENCHMARK_DEFINE_F(GpuBench, bias_activation_backward)(benchmark::State& state) {
    const Extent extent(state);
    const auto f = static_cast<Activation>(state.range(2));
    const auto product = random_buffer(extent.size());
    const auto bias = random_buffer(extent.width());
    const auto d_h = random_buffer(extent.size());
    const DeviceBuffer<float> d_pre(extent.size());
    const DeviceBuffer<float> d_bias(extent.width());
    const ScratchBuffer scratch(extent.rows, extent.cols);
    measure(state, 3 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        bias_activation_backward(f, product.data(), bias.data(), d_h.data(), extent.rows,
                                 extent.cols, d_pre.data(), d_bias.data(), scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, bias_activation_backward)->Apply(activation_sizes);

}  // namespace
}  // namespace vae::bench
