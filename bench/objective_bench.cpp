#include "kernels/objective.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

BENCHMARK_DEFINE_F(GpuBench, objective_iwae)(benchmark::State& state) {
    const auto examples = static_cast<std::size_t>(state.range(0));
    const auto samples = static_cast<std::size_t>(state.range(1));
    const auto recon = random_buffer(examples * samples);
    const auto log_ratio = random_buffer(examples * samples);
    const auto kl = random_buffer(examples);
    const DeviceBuffer<float> losses(3 * examples);
    const DeviceBuffer<float> weights(3 * examples * samples);
    const kernels::ObjectiveInputs in{recon.data(),
                                      log_ratio.data(),
                                      kl.data(),
                                      static_cast<int>(examples),
                                      static_cast<int>(samples),
                                      1.0f};
    const kernels::ObjectiveOutputs out{.recon = losses.data(),
                                        .kl = losses.data() + examples,
                                        .loss = losses.data() + 2 * examples,
                                        .decoder = weights.data(),
                                        .ratio = weights.data() + examples * samples,
                                        .score = weights.data() + 2 * examples * samples};
    const std::size_t bytes = 2 * recon.bytes() + kl.bytes() + losses.bytes() + weights.bytes();
    measure(state, bytes, examples * samples, [&](cudaStream_t stream) {
        kernels::objective(kernels::Objective::iwae, in, nullptr, out, stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, objective_iwae)
    ->ArgNames({"examples", "samples"})
    ->Args({20, 1})
    ->Args({20, 50})
    ->Args({20, 5000})
    ->Args({8192, 5})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

BENCHMARK_DEFINE_F(GpuBench, update_running_mean)(benchmark::State& state) {
    const auto examples = static_cast<std::size_t>(state.range(0));
    const auto signal = random_buffer(examples);
    const DeviceBuffer<double> mean(1);
    measure(state, signal.bytes(), examples, [&](cudaStream_t stream) {
        kernels::update_running_mean(signal.data(), static_cast<int>(examples), 0.99, mean.data(),
                                     stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, update_running_mean)
    ->ArgName("examples")
    ->Arg(128)
    ->Arg(8192)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace vae::bench
