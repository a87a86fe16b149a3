#include "kernels/gated.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

void gated_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "cols"})->Args({128, 400})->Args({8192, 4096});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

// A layer without padding. T is float or Bf16, as its arrays are stored.
template <class T>
struct Layer {
    explicit Layer(const Extent& extent)
        : product(random_buffer<T>(2 * extent.size())),
          bias(random_buffer(2 * extent.width())),
          view{product.data(), bias.data(), bias.data() + extent.width(),
               extent.rows,    extent.cols, extent.cols} {}

    DeviceBuffer<T> product;
    DeviceBuffer<float> bias;
    kernels::GatedView view;
};

template <class T>
void forward(GpuBench& bench, benchmark::State& state) {
    const Extent extent(state);
    const Layer<T> layer(extent);
    const DeviceBuffer<T> h(extent.size());
    bench.measure(state, layer.product.bytes() + h.bytes(), extent.size(),
                  [&](cudaStream_t stream) { gated_forward(layer.view, h.data(), stream); });
}

template <class T>
void backward(GpuBench& bench, benchmark::State& state) {
    const Extent extent(state);
    const Layer<T> layer(extent);
    const auto d_h = random_buffer<T>(extent.size());
    const DeviceBuffer<T> d_product(2 * extent.size());
    const DeviceBuffer<float> d_bias(2 * extent.width());
    const ScratchBuffer scratch(extent.rows, 2 * extent.cols);
    bench.measure(state, 2 * layer.product.bytes() + d_h.bytes(), extent.size(),
                  [&](cudaStream_t stream) {
                      gated_backward(layer.view, d_h.data(), d_product.data(), d_bias.data(),
                                     d_bias.data() + extent.width(), scratch.get(), stream);
                  });
}

BENCHMARK_DEFINE_F(GpuBench, gated_forward)(benchmark::State& state) {
    forward<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, gated_forward)->Apply(gated_sizes);

BENCHMARK_DEFINE_F(GpuBench, gated_forward_bf16)(benchmark::State& state) {
    forward<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, gated_forward_bf16)->Apply(gated_sizes);

BENCHMARK_DEFINE_F(GpuBench, gated_backward)(benchmark::State& state) {
    backward<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, gated_backward)->Apply(gated_sizes);

BENCHMARK_DEFINE_F(GpuBench, gated_backward_bf16)(benchmark::State& state) {
    backward<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, gated_backward_bf16)->Apply(gated_sizes);

}  // namespace
}  // namespace vae::bench
