// Training steps of the CPU reference on workload S (784-400-20-400-784, ReLU, Bernoulli, batch
// 128, Adam). Threads: OMP_NUM_THREADS.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "host/backend.h"
#include "host/noise.h"
#include "host/parameters.h"

namespace {

constexpr std::size_t kPixels = 784;
constexpr std::size_t kExamples = 12800;
constexpr std::uint32_t kStepsACall = 10;

using Factory = std::unique_ptr<vae::Backend> (*)(const vae::Config&, const vae::ParameterLayout&);

// Uniformly random bytes: what the pixels are does not matter to the time.
vae::Splits random_images() {
    vae::Splits splits;
    splits.train.shape = {28, 28, 1};
    splits.train.size = kExamples;
    std::vector<std::uint8_t> bytes(kExamples * kPixels);
    std::vector<float> uniforms(bytes.size());
    vae::fill_uniform({1, vae::Purpose::synthetic_data, 0, 0, 0}, uniforms);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::uint8_t>(uniforms[i] * 255);
    }
    splits.train.values = std::move(bytes);
    return splits;
}

std::unique_ptr<vae::Backend> make(Factory factory, const vae::Config& config,
                                   const vae::Splits& splits) {
    const vae::ParameterLayout layout(config.model, kPixels);
    auto backend = factory(config, layout);
    backend->set_data(splits);
    backend->set_state(vae::start_state(
        config.train, vae::initial_parameters(layout, config.model.initialization, 1)));
    return backend;
}

void train_step(benchmark::State& state, Factory factory, vae::Binarize binarize) {
    vae::Config config;
    config.data.binarize = binarize;
    const vae::Splits splits = random_images();
    const auto backend = make(factory, config, splits);
    std::vector<std::uint32_t> rows(kStepsACall * config.train.batch);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = static_cast<std::uint32_t>(i * 7919 % kExamples);
    }
    vae::TrainRequest request{0, rows, config.train.batch, {{1e-3, 1.0}}};
    for (auto _ : state) {
        backend->train(request);
        request.first_step += kStepsACall;
    }
    benchmark::DoNotOptimize(backend->take_totals().losses);
    state.SetItemsProcessed(state.iterations() * kStepsACall * config.train.batch);
    state.counters["ms_per_step"] =
        benchmark::Counter(static_cast<double>(state.iterations()) * kStepsACall / 1e3,
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void evaluate(benchmark::State& state, Factory factory) {
    const vae::Splits splits = random_images();
    const auto backend = make(factory, vae::Config(), splits);
    for (auto _ : state) {
        benchmark::DoNotOptimize(backend->evaluate(vae::Split::train, 1.0));
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kExamples));
}

using vae::make_cpu_backend;
using vae::make_cpu_double_backend;
BENCHMARK_CAPTURE(train_step, float_grey, make_cpu_backend, vae::Binarize::none)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(train_step, float_binarized, make_cpu_backend, vae::Binarize::dynamic)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(train_step, double_grey, make_cpu_double_backend, vae::Binarize::none)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(evaluate, float_grey, make_cpu_backend)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
