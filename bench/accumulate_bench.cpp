#include "kernels/accumulate.h"

#include "bench/arena_bench.h"

namespace vae::bench {
namespace {

BENCHMARK_DEFINE_F(GpuBench, accumulate)(benchmark::State& state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    const auto part = random_buffer(size);
    const auto total = random_buffer(size);
    measure(state, 3 * part.bytes(), size, [&](cudaStream_t stream) {
        kernels::accumulate(part.data(), size, total.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, accumulate)->Apply(arena_sizes);

}  // namespace
}  // namespace vae::bench
