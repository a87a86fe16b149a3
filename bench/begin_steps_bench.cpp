#include "kernels/begin_steps.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

using kernels::StepQueue;
using kernels::StepState;

// The start of an epoch of 60 000 examples.
BENCHMARK_DEFINE_F(GpuBench, begin_steps)(benchmark::State& state) {
    const auto steps = static_cast<std::size_t>(state.range(0));
    const auto batch = static_cast<std::size_t>(state.range(1));
    const DeviceBuffer<StepQueue> queue(1);
    const DeviceBuffer<StepState> table(steps);
    const DeviceBuffer<StepState> states(steps);
    const DeviceBuffer<std::uint32_t> index(steps * batch);
    const kernels::StepOrder order{.queue = queue.data(), .table = table.data(), .count = 60'000};
    measure(
        state, table.bytes() + states.bytes() + index.bytes(), index.size(),
        [&](cudaStream_t stream) {
            kernels::begin_steps(order, static_cast<int>(steps), static_cast<int>(batch),
                                 states.data(), index.data(), nullptr, stream);
        },
        [&](cudaStream_t stream) {  // back to the first step
            kernels::cuda_check(cudaMemsetAsync(queue.data(), 0, queue.bytes(), stream),
                                "cudaMemsetAsync");
        });
}
BENCHMARK_REGISTER_F(GpuBench, begin_steps)
    ->ArgNames({"steps", "batch"})
    ->Args({1, 128})
    ->Args({32, 128})
    ->Args({7, 8192})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace vae::bench
