#include "kernels/poisson.h"

#include "bench/likelihood_input.h"

namespace vae::bench {
namespace {

using kernels::Storage;

// Counts of a byte.
LikelihoodBuffers buffers_of(const Extent& extent, Storage of_gradient = Storage::fp32) {
    LikelihoodBuffers buffers(extent, 1, of_gradient);
    buffers.x = level_buffer(extent.size(), 255, 255.0f);
    return buffers;
}

BENCHMARK_DEFINE_F(GpuBench, poisson_forward)(benchmark::State& state) {
    const LikelihoodBuffers buffers = buffers_of(Extent(state));
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols);
    measure(state, buffers.forward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::poisson_forward(buffers.input(), buffers.recon.data(), scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, poisson_forward)->Apply(batch_sizes);

// With the gradient stored as float or as bf16.
void forward_backward(GpuBench& bench, benchmark::State& state, Storage storage) {
    const LikelihoodBuffers buffers = buffers_of(Extent(state), storage);
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols);
    bench.measure(state, buffers.backward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::poisson_forward_backward(buffers.input(), buffers.gradient(), buffers.recon.data(),
                                          scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, poisson_forward_backward)(benchmark::State& state) {
    forward_backward(*this, state, Storage::fp32);
}
BENCHMARK_REGISTER_F(GpuBench, poisson_forward_backward)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, poisson_forward_backward_bf16)(benchmark::State& state) {
    forward_backward(*this, state, Storage::bf16);
}
BENCHMARK_REGISTER_F(GpuBench, poisson_forward_backward_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, poisson_mean)(benchmark::State& state) {
    const LikelihoodBuffers buffers = buffers_of(Extent(state));
    const DeviceBuffer<float> mean(buffers.extent.size());
    measure(state, 2 * mean.bytes(), mean.size(), [&](cudaStream_t stream) {
        kernels::poisson_mean(buffers.input(), mean.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, poisson_mean)->Apply(batch_sizes);

template <class T>
void log_counts(GpuBench& bench, benchmark::State& state) {
    const Extent extent(state);
    const auto x = level_buffer(extent.size(), 255, 255.0f);
    const DeviceBuffer<T> out(extent.size());
    bench.measure(state, x.bytes() + out.bytes(), x.size(), [&](cudaStream_t stream) {
        kernels::log_counts(x.data(), extent.rows, extent.cols, out.data(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, log_counts)(benchmark::State& state) {
    log_counts<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, log_counts)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, log_counts_bf16)(benchmark::State& state) {
    log_counts<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, log_counts_bf16)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
