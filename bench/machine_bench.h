// What the rows under "machine/" share: what a device takes beside a network's own work. Their
// iterations are few and fixed, so that all of them take less than a minute. A row that this device
// cannot run says why in its label.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <string>

#include "bench/gpu_fixture.h"
#include "host/gpu/device_array.h"

namespace vae::bench {

// Of the device that is measured.
unsigned multiprocessors();

// Where rows are measured.
class Machine {
  public:
    Machine() : stopwatch_(stream_.get()) {}
    const gpu::Stream& stream() const { return stream_; }
    Stopwatch& stopwatch() { return stopwatch_; }

    // Seconds of each of the `count` things that run(2 * count) does more than run(count), each
    // behind the same in the cache; so what both take besides is in neither.
    double seconds_of_each(int count, const std::function<void(int)>& run);

  private:
    gpu::Stream stream_;
    Stopwatch stopwatch_;
};

// Registers a benchmark that times itself; an exception of the body is its error.
benchmark::internal::Benchmark* add_benchmark(const std::string& name,
                                              const std::function<void(benchmark::State&)>& body);
// Likewise a row under "machine/".
void add_row(const std::string& name, int iterations,
             const std::function<void(benchmark::State&)>& body);
// Takes a sample, in seconds, for each iteration; their median, which the counter `us` tells.
double median_seconds(benchmark::State& state, const std::function<double()>& sample);
// Ends a row that is not measured here.
void leave_out(benchmark::State& state, const std::string& why);

// Each registers its rows, which use the machine when they run. Throws kernels::CudaError and
// RunError.
void add_nodes(Machine& machine);
void add_barriers(Machine& machine);
void add_copies(Machine& machine);
void add_epilogues(Machine& machine);
// Behind all others: what they found beside what was predicted.
void add_summary();

// All of them.
void add_machine();

}  // namespace vae::bench
