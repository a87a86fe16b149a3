#include "kernels/gaussian.h"

#include "bench/likelihood_input.h"

namespace vae::bench {
namespace {

using kernels::Storage;

// sigma = 1/2, on the device. The benchmark's stream waits until it is there.
DeviceBuffer<kernels::GaussianVariance> variance_buffer() {
    const kernels::GaussianVariance value = {
        .logvar = -1.3862943611198906, .precision = 4, .slope = 0, .average = 0};
    DeviceBuffer<kernels::GaussianVariance> buffer(1);
    kernels::cuda_check(cudaMemcpy(buffer.data(), &value, buffer.bytes(), cudaMemcpyHostToDevice),
                        "cudaMemcpy");
    return buffer;
}

BENCHMARK_DEFINE_F(GpuBench, gaussian_forward)(benchmark::State& state) {
    const Extent extent(state);
    const auto product = random_buffer(extent.size());
    const auto bias = random_buffer(extent.width());
    const auto x = random_buffer(extent.size());
    const DeviceBuffer<float> recon(extent.height());
    const auto variance = variance_buffer();
    const ScratchBuffer scratch(extent.rows, extent.cols);
    measure(state, 2 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        kernels::gaussian_forward(input(product, bias, x, extent), variance.data(), recon.data(),
                                  scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_forward)->Apply(batch_sizes);

// With the gradient stored as float or as bf16, as the next.
void forward_backward(GpuBench& bench, benchmark::State& state, Storage storage) {
    LikelihoodBuffers buffers(Extent(state), 1, storage);
    buffers.x = random_buffer(buffers.extent.size());
    const auto variance = variance_buffer();
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols);
    bench.measure(state, buffers.backward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::gaussian_forward_backward(buffers.input(), variance.data(), buffers.gradient(),
                                           buffers.recon.data(), nullptr, scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, gaussian_forward_backward)(benchmark::State& state) {
    forward_backward(*this, state, Storage::fp32);
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_forward_backward)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, gaussian_forward_backward_bf16)(benchmark::State& state) {
    forward_backward(*this, state, Storage::bf16);
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_forward_backward_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, gaussian_squares)(benchmark::State& state) {
    const LikelihoodBuffers buffers(Extent(state), 1);
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols);
    measure(state, buffers.forward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::gaussian_squares(buffers.input(), buffers.recon.data(), scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_squares)->Apply(batch_sizes);

constexpr kernels::LogBounds kBounds = {-9.2f, 4.6f};  // of sigmas from 0.01 to 10

BENCHMARK_DEFINE_F(GpuBench, gaussian_pixel_forward)(benchmark::State& state) {
    const LikelihoodBuffers buffers(Extent(state), 2);
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols, 2);
    measure(state, buffers.forward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::gaussian_pixel_forward(buffers.input(), kBounds, buffers.recon.data(),
                                        scratch.get(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_pixel_forward)->Apply(batch_sizes);

void pixel_forward_backward(GpuBench& bench, benchmark::State& state, Storage storage) {
    const LikelihoodBuffers buffers(Extent(state), 2, storage);
    const ScratchBuffer scratch(buffers.extent.rows, buffers.extent.cols, 2);
    bench.measure(state, buffers.backward_bytes(), buffers.extent.size(), [&](cudaStream_t stream) {
        kernels::gaussian_pixel_forward_backward(buffers.input(), kBounds, buffers.gradient(),
                                                 buffers.recon.data(), scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, gaussian_pixel_forward_backward)(benchmark::State& state) {
    pixel_forward_backward(*this, state, Storage::fp32);
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_pixel_forward_backward)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, gaussian_pixel_forward_backward_bf16)(benchmark::State& state) {
    pixel_forward_backward(*this, state, Storage::bf16);
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_pixel_forward_backward_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GpuBench, add_bias)(benchmark::State& state) {
    const Extent extent(state);
    const auto product = random_buffer(extent.size());
    const auto bias = random_buffer(extent.width());
    const DeviceBuffer<float> mean(extent.size());
    measure(state, 2 * product.bytes(), extent.size(), [&](cudaStream_t stream) {
        kernels::add_bias(product.data(), bias.data(), extent.rows, extent.cols, extent.cols,
                          mean.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, add_bias)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
