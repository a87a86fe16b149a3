// Runs the benchmarks on a GPU. Without one it says so and exits with the status that CTest counts
// as skipped; that no benchmark matches the filter is a failure.
#include <benchmark/benchmark.h>

#include <cstddef>

#include "tests/gpu_presence.h"

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    const int status = vae::test::gpu_exit_status();
    if (status != 0) return status;
    const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return ran > 0 ? 0 : 1;
}
