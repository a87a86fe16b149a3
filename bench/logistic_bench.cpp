#include "kernels/logistic.h"

#include "bench/likelihood_input.h"

namespace vae::bench {
namespace {

using kernels::Storage;

constexpr kernels::LogisticSettings kSettings = {.levels = 256, .bounds = {-4.6f, 2.3f}};

// x as bytes give it.
LikelihoodBuffers buffers_of(const Extent& extent, Storage of_gradient = Storage::fp32) {
    LikelihoodBuffers buffers(extent, 2, of_gradient);
    buffers.x = level_buffer(extent.size(), 255, 1.0f);
    return buffers;
}

BENCHMARK_DEFINE_F(GpuBench, logistic_forward)(benchmark::State& state) {
    const LikelihoodBuffers buffers = buffers_of(Extent(state));
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols, 2);
    measure(state, buffers.forward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::logistic_forward(buffers.input(), kSettings, buffers.recon.data(), scratch.get(),
                                  stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, logistic_forward)->Apply(batch_sizes);

// With the gradient stored as float or as bf16.
void forward_backward(GpuBench& bench, benchmark::State& state, Storage storage) {
    const LikelihoodBuffers buffers = buffers_of(Extent(state), storage);
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols, 2);
    bench.measure(state, buffers.backward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::logistic_forward_backward(buffers.input(), kSettings, buffers.gradient(),
                                           buffers.recon.data(), scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, logistic_forward_backward)(benchmark::State& state) {
    forward_backward(*this, state, Storage::fp32);
}
BENCHMARK_REGISTER_F(GpuBench, logistic_forward_backward)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, logistic_forward_backward_bf16)(benchmark::State& state) {
    forward_backward(*this, state, Storage::bf16);
}
BENCHMARK_REGISTER_F(GpuBench, logistic_forward_backward_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, logistic_mean)(benchmark::State& state) {
    const LikelihoodBuffers buffers = buffers_of(Extent(state));
    const DeviceBuffer<float> mean(buffers.extent.size());
    measure(state, buffers.product.bytes() + mean.bytes(), mean.size(), [&](cudaStream_t stream) {
        kernels::logistic_mean(buffers.input(), kSettings, mean.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, logistic_mean)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
