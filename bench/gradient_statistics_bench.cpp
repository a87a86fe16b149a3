#include "kernels/gradient_statistics.h"

#include "bench/arena_bench.h"

namespace vae::bench {
namespace {

double measure_statistics(GpuBench& bench, benchmark::State& state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    const auto gradients = random_buffer(size);
    const BenchArena arena(size);
    const DeviceBuffer<double> squares(1);
    const DeviceBuffer<float> scales(1);
    const DeviceBuffer<double> partials(arena.table().piece_count);
    const DeviceBuffer<unsigned> ticket(1);
    const DeviceBuffer<unsigned> is_taken(1);
    const DeviceBuffer<kernels::LossSums> batch(1);
    const DeviceBuffer<kernels::StepRecord> record(1);
    const DeviceBuffer<kernels::StepState> step(1);
    return bench.measure(state, gradients.bytes(), size, [&](cudaStream_t stream) {
        kernels::gradient_statistics(arena.table(), gradients.data(),
                                     {.normalize = true, .clip_norm = 1}, step.data(),
                                     {squares.data(), scales.data(), is_taken.data(), batch.data(),
                                      record.data(), partials.data(), ticket.data()},
                                     stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, gradient_statistics)(benchmark::State& state) {
    measure_statistics(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, gradient_statistics)->Apply(arena_sizes);

BENCHMARK_DEFINE_F(GpuBench, gradient_statistics_beyond_cache)(benchmark::State& state) {
    note_share_of_copy("gradient_statistics", measure_statistics(*this, state));
}
BENCHMARK_REGISTER_F(GpuBench, gradient_statistics_beyond_cache)
    ->Name("machine/memory/gradient_statistics")
    ->Apply(beyond_cache);

}  // namespace
}  // namespace vae::bench
