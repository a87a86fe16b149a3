#include "kernels/gated.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

void gated_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "cols"})->Args({128, 400})->Args({8192, 4096});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

// A layer without padding.
struct Layer {
    explicit Layer(const Extent& extent)
        : product(random_buffer(2 * extent.size())),
          bias(random_buffer(2 * extent.width())),
          view{product.data(), bias.data(), bias.data() + extent.width(),
               extent.rows,    extent.cols, extent.cols} {}

    DeviceBuffer<float> product;
    DeviceBuffer<float> bias;
    kernels::GatedView view;
};

BENCHMARK_DEFINE_F(GpuBench, gated_forward)(benchmark::State& state) {
    const Extent extent(state);
    const Layer layer(extent);
    const DeviceBuffer<float> h(extent.size());
    measure(state, layer.product.bytes() + h.bytes(), extent.size(),
            [&](cudaStream_t stream) { gated_forward(layer.view, h.data(), stream); });
}
BENCHMARK_REGISTER_F(GpuBench, gated_forward)->Apply(gated_sizes);

BENCHMARK_DEFINE_F(GpuBench, gated_backward)(benchmark::State& state) {
    const Extent extent(state);
    const Layer layer(extent);
    const auto d_h = random_buffer(extent.size());
    const DeviceBuffer<float> d_product(2 * extent.size());
    const DeviceBuffer<float> d_bias(2 * extent.width());
    const ScratchBuffer scratch(extent.rows, 2 * extent.cols);
    measure(state, 2 * layer.product.bytes() + d_h.bytes(), extent.size(),
            [&](cudaStream_t stream) {
                gated_backward(layer.view, d_h.data(), d_product.data(), d_bias.data(),
                               d_bias.data() + extent.width(), scratch.get(), stream);
            });
}
BENCHMARK_REGISTER_F(GpuBench, gated_backward)->Apply(gated_sizes);

}  // namespace
}  // namespace vae::bench
