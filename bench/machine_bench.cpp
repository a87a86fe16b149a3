#include "bench/machine_bench.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <vector>

namespace vae::bench {

unsigned multiprocessors() {
    int count = 0;
    kernels::cuda_check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0),
                        "cudaDeviceGetAttribute");
    return static_cast<unsigned>(count);
}

double Machine::seconds_of_each(int count, const std::function<void(int)>& run) {
    const double fewer = stopwatch_.time_again([&](cudaStream_t) { run(count); });
    const double more = stopwatch_.time_again([&](cudaStream_t) { run(2 * count); });
    return std::max(more - fewer, 0.0) / count;
}

benchmark::internal::Benchmark* add_benchmark(const std::string& name,
                                              const std::function<void(benchmark::State&)>& body) {
    const auto guarded = [body](benchmark::State& state) {
        try {
            body(state);
        } catch (const std::exception& error) {
            state.SkipWithError(error.what());
        }
    };
    return benchmark::RegisterBenchmark(name.c_str(), guarded)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
}

void add_row(const std::string& name, int iterations,
             const std::function<void(benchmark::State&)>& body) {
    add_benchmark("machine/" + name, body)->Iterations(iterations);
}

double median_seconds(benchmark::State& state, const std::function<double()>& sample) {
    std::vector<double> samples;
    for (auto _ : state) {
        samples.push_back(sample());
        state.SetIterationTime(samples.back());
    }
    const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
    std::nth_element(samples.begin(), middle, samples.end());
    state.counters["us"] = *middle * 1e6;
    return *middle;
}

void leave_out(benchmark::State& state, const std::string& why) {
    for (auto _ : state) state.SetIterationTime(0);
    state.SetLabel("not run: " + why);
}

void add_machine() {
    static std::unique_ptr<Machine> machine;  // the rows run when this has returned
    machine = std::make_unique<Machine>();
    add_nodes(*machine);
    add_barriers(*machine);
    add_copies(*machine);
    add_epilogues(*machine);
    add_summary();
}

}  // namespace vae::bench
