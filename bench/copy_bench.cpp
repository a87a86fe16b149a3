// The ceiling: a copy on the device, one read and one write a byte.
#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

BENCHMARK_DEFINE_F(GpuBench, copy)(benchmark::State& state) {
    const Extent extent(state);
    const auto from = random_buffer(extent.size());
    const DeviceBuffer<float> to(extent.size());
    measure(state, 2 * from.bytes(), extent.size(), [&](cudaStream_t stream) {
        kernels::cuda_check(
            cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDeviceToDevice, stream),
            "cudaMemcpyAsync");
    });
}
BENCHMARK_REGISTER_F(GpuBench, copy)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
