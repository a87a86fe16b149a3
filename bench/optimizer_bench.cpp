#include "kernels/optimizer.h"

#include "bench/arena_bench.h"

namespace vae::bench {
namespace {

using kernels::UpdateRule;

class OptimizerBench : public GpuBench {
  protected:
    double measure_rule(benchmark::State& state, UpdateRule rule, int moments, bool has_average,
                        bool has_copy = false) {
        const auto size = static_cast<std::size_t>(state.range(0));
        const auto gradients = random_buffer(size);
        const auto parameters = random_buffer(size);
        const DeviceBuffer<float> moment1(size);
        const DeviceBuffer<float> moment2(size);
        const DeviceBuffer<float> average(size);
        const DeviceBuffer<kernels::Bf16> copy(has_copy ? size : 0);
        const BenchArena arena(size);
        const auto scales = uploaded(std::vector<float>{1});
        const auto is_taken = uploaded(std::vector<unsigned>{1});
        kernels::OptimizerSettings settings;
        settings.rule = rule;
        settings.average_decay = 0.999;
        const auto step = uploaded(std::vector<kernels::StepState>{{.step_size = 1e-3f}});
        // Gradients are read; the rest is read and written.
        const std::size_t arrays =
            3 + 2 * static_cast<std::size_t>(moments) + (has_average ? 2 : 0);
        return measure(
            state, arrays * gradients.bytes() + copy.bytes(), size, [&](cudaStream_t stream) {
                kernels::optimizer(
                    settings, step.data(), arena.table(), scales.data(), is_taken.data(),
                    {gradients.data(), parameters.data(), moments > 0 ? moment1.data() : nullptr,
                     moments > 1 ? moment2.data() : nullptr, has_average ? average.data() : nullptr,
                     has_copy ? copy.data() : nullptr},
                    stream);
            });
    }
};

BENCHMARK_DEFINE_F(OptimizerBench, adam)(benchmark::State& state) {
    measure_rule(state, UpdateRule::adam, 2, false);
}
BENCHMARK_DEFINE_F(OptimizerBench, adam_average)(benchmark::State& state) {
    measure_rule(state, UpdateRule::adam, 2, true);
}
BENCHMARK_DEFINE_F(OptimizerBench, adam_bf16)(benchmark::State& state) {
    measure_rule(state, UpdateRule::adam, 2, false, true);
}
BENCHMARK_DEFINE_F(OptimizerBench, adagrad)(benchmark::State& state) {
    measure_rule(state, UpdateRule::adagrad, 1, false);
}
BENCHMARK_DEFINE_F(OptimizerBench, sgd_momentum)(benchmark::State& state) {
    measure_rule(state, UpdateRule::momentum, 1, false);
}
BENCHMARK_DEFINE_F(OptimizerBench, sgd)(benchmark::State& state) {
    measure_rule(state, UpdateRule::sgd, 0, false);
}
BENCHMARK_DEFINE_F(OptimizerBench, adam_beyond_cache)(benchmark::State& state) {
    note_share_of_copy("adam", measure_rule(state, UpdateRule::adam, 2, false));
}
BENCHMARK_DEFINE_F(OptimizerBench, adam_bf16_beyond_cache)(benchmark::State& state) {
    note_share_of_copy("adam_bf16", measure_rule(state, UpdateRule::adam, 2, false, true));
}
BENCHMARK_REGISTER_F(OptimizerBench, adam)->Apply(arena_sizes);
BENCHMARK_REGISTER_F(OptimizerBench, adam_average)->Apply(arena_sizes);
BENCHMARK_REGISTER_F(OptimizerBench, adam_bf16)->Apply(arena_sizes);
BENCHMARK_REGISTER_F(OptimizerBench, adagrad)->Apply(arena_sizes);
BENCHMARK_REGISTER_F(OptimizerBench, sgd_momentum)->Apply(arena_sizes);
BENCHMARK_REGISTER_F(OptimizerBench, sgd)->Apply(arena_sizes);
BENCHMARK_REGISTER_F(OptimizerBench, adam_beyond_cache)
    ->Name("machine/memory/adam")
    ->Apply(beyond_cache);
BENCHMARK_REGISTER_F(OptimizerBench, adam_bf16_beyond_cache)
    ->Name("machine/memory/adam_bf16")
    ->Apply(beyond_cache);

}  // namespace
}  // namespace vae::bench
