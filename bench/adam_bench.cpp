#include "kernels/adam.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

BENCHMARK_DEFINE_F(GpuBench, adam)(benchmark::State& state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    const auto gradients = random_buffer(size);
    const auto parameters = random_buffer(size);
    const DeviceBuffer<float> m(size);
    const DeviceBuffer<float> v(size);
    kernels::AdamStep step;
    step.step_size = 1e-3f;
    measure(state, 7 * gradients.bytes(), size, [&](cudaStream_t stream) {
        kernels::adam(step, gradients.data(), size, parameters.data(), m.data(), v.data(), stream);
    });
}
// The parameters of 784-400-20 and of 3072-4096-4096-z256, both mirrored.
BENCHMARK_REGISTER_F(GpuBench, adam)
    ->ArgName("size")
    ->Arg(652'864)
    ->Arg(61'900'032)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace vae::bench
