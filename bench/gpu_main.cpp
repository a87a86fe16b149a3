// Runs the benchmarks on a GPU. Without one it says so and exits with the status that CTest counts
// as skipped; that no benchmark matches the filter is a failure.
#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "bench/dense_bench.h"
#include "bench/gpu_fixture.h"
#include "bench/gpu_matmul_bench.h"
#include "bench/machine_bench.h"
#include "tests/gpu_presence.h"

namespace {

// Hundreds of benchmarks, whose iterations each flush the cache: with the library's half a second
// of device time for each, all of them would take the better part of an hour.
constexpr const char* kMinTime = "--benchmark_min_time=0.01";

// What the numbers belong to, in the output of every format.
void describe_device() {
    using vae::kernels::cuda_check;
    cudaDeviceProp properties = {};
    cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    int driver = 0;
    int runtime = 0;
    cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    cuda_check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    benchmark::AddCustomContext("gpu", properties.name);
    benchmark::AddCustomContext("cuda_driver", std::to_string(driver));
    benchmark::AddCustomContext("cuda_runtime", std::to_string(runtime));
    benchmark::AddCustomContext("copy_bytes_per_second",
                                std::to_string(vae::bench::copy_bandwidth()));
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<char*> arguments(argv, argv + argc);
    std::string min_time = kMinTime;  // what is given comes later, and counts
    arguments.insert(arguments.begin() + 1, min_time.data());
    int count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
    const int status = vae::test::gpu_exit_status();
    if (status != 0) return status;
    try {
        describe_device();
        vae::bench::add_products();
        vae::bench::add_dense_layers();
        vae::bench::add_dense_elbo();
        vae::bench::add_machine();
        const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
        benchmark::Shutdown();
        return ran > 0 ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}
