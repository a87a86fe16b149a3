#include "kernels/convert.h"

#include "bench/arena_bench.h"

namespace vae::bench {
namespace {

BENCHMARK_DEFINE_F(GpuBench, round_to_bf16)(benchmark::State& state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    const auto values = random_buffer(size);
    const DeviceBuffer<kernels::Bf16> rounded(size);
    measure(state, values.bytes() + rounded.bytes(), size, [&](cudaStream_t stream) {
        kernels::round_to_bf16(values.data(), size, rounded.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, round_to_bf16)->Apply(arena_sizes);

}  // namespace
}  // namespace vae::bench
