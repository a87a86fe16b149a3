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

// T is float or Bf16, as the arrays of the hidden layer are stored.
template <class T>
void forward(GpuBench& bench, benchmark::State& state) {
    const Extent extent(state);
    const auto f = static_cast<Activation>(state.range(2));
    const auto product = random_buffer<T>(extent.size());
    const auto bias = random_buffer(extent.width());
    const DeviceBuffer<T> h(extent.size());
    bench.measure(state, product.bytes() + h.bytes(), extent.size(), [&](cudaStream_t stream) {
        bias_activation_forward(f, product.data(), bias.data(), extent.rows, extent.cols, h.data(),
                                stream);
    });
}

template <class T>
void backward(GpuBench& bench, benchmark::State& state) {
    const Extent extent(state);
    const auto f = static_cast<Activation>(state.range(2));
    const auto product = random_buffer<T>(extent.size());
    const auto bias = random_buffer(extent.width());
    const auto d_h = random_buffer<T>(extent.size());
    const DeviceBuffer<T> d_pre(extent.size());
    const DeviceBuffer<float> d_bias(extent.width());
    const ScratchBuffer scratch(extent.rows, extent.cols);
    bench.measure(state, 3 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        bias_activation_backward(f, product.data(), bias.data(), d_h.data(), extent.rows,
                                 extent.cols, d_pre.data(), d_bias.data(), scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, bias_activation_forward)(benchmark::State& state) {
    forward<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, bias_activation_forward)->Apply(activation_sizes);

BENCHMARK_DEFINE_F(GpuBench, bias_activation_forward_bf16)(benchmark::State& state) {
    forward<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, bias_activation_forward_bf16)->Apply(activation_sizes);

BENCHMARK_DEFINE_F(GpuBench, bias_activation_backward)(benchmark::State& state) {
    backward<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, bias_activation_backward)->Apply(activation_sizes);

BENCHMARK_DEFINE_F(GpuBench, bias_activation_backward_bf16)(benchmark::State& state) {
    backward<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, bias_activation_backward_bf16)->Apply(activation_sizes);

}  // namespace
}  // namespace vae::bench
