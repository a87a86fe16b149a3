#include "kernels/bernoulli.h"

#include "bench/likelihood_input.h"

namespace vae::bench {
namespace {

using kernels::Storage;

BENCHMARK_DEFINE_F(GpuBench, bernoulli_forward)(benchmark::State& state) {
    const Extent extent(state);
    const auto product = random_buffer(extent.size());
    const auto bias = random_buffer(extent.width());
    const auto x = random_buffer(extent.size());
    const DeviceBuffer<float> recon(extent.height());
    const ScratchBuffer scratch(extent.rows, extent.cols);
    measure(state, 2 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        kernels::bernoulli_forward(input(product, bias, x, extent), recon.data(), scratch.get(),
                                   stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, bernoulli_forward)->Apply(batch_sizes);

// With the gradient stored as float or as bf16.
double forward_backward(GpuBench& bench, benchmark::State& state, Storage storage) {
    LikelihoodBuffers buffers(Extent(state), 1, storage);
    buffers.x = random_buffer(buffers.extent.size());
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols);
    return bench.measure(
        state, buffers.backward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
            kernels::bernoulli_forward_backward(buffers.input(), buffers.gradient(),
                                                buffers.recon.data(), scratch.get(), stream);
        });
}

BENCHMARK_DEFINE_F(GpuBench, bernoulli_forward_backward)(benchmark::State& state) {
    forward_backward(*this, state, Storage::fp32);
}
BENCHMARK_REGISTER_F(GpuBench, bernoulli_forward_backward)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, bernoulli_forward_backward_bf16)(benchmark::State& state) {
    forward_backward(*this, state, Storage::bf16);
}
BENCHMARK_REGISTER_F(GpuBench, bernoulli_forward_backward_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, bernoulli_beyond_cache)(benchmark::State& state) {
    note_share_of_copy("bernoulli", forward_backward(*this, state, Storage::fp32));
}
BENCHMARK_REGISTER_F(GpuBench, bernoulli_beyond_cache)
    ->Name("machine/memory/bernoulli_forward_backward")
    ->Apply(large_batch);

BENCHMARK_DEFINE_F(GpuBench, bernoulli_mean)(benchmark::State& state) {
    const Extent extent(state);
    const auto product = random_buffer(extent.size());
    const auto bias = random_buffer(extent.width());
    const DeviceBuffer<float> mean(extent.size());
    measure(state, 2 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        kernels::bernoulli_mean({product.data(), bias.data(), nullptr, extent.rows, extent.cols},
                                mean.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, bernoulli_mean)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
