#include "kernels/gaussian_variance.h"

#include "bench/likelihood_input.h"

namespace vae::bench {
namespace {

void row_counts(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgName("rows")->Arg(128)->Arg(8192);
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

// One variance, its parameter and its gradient, and squared errors of rows of 784 pixels.
struct Variance {
    static constexpr int kPixels = 784;

    explicit Variance(int row_count)
        : rows(row_count),
          squares(level_buffer(static_cast<std::size_t>(rows), 255, 100.0f)),
          parameter(1),
          d_parameter(1),
          variance(1),
          is_taken(1) {}

    int rows;
    DeviceBuffer<float> squares;
    DeviceBuffer<float> parameter;
    DeviceBuffer<float> d_parameter;
    DeviceBuffer<kernels::GaussianVariance> variance;
    DeviceBuffer<unsigned> is_taken;
};

BENCHMARK_DEFINE_F(GpuBench, gaussian_bounded_variance)(benchmark::State& state) {
    const Variance v(1);
    measure(state, sizeof(kernels::GaussianVariance), 1, [&](cudaStream_t stream) {
        kernels::gaussian_bounded_variance(v.parameter.data(), -9.2, 4.6, v.variance.data(),
                                           stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_bounded_variance)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

BENCHMARK_DEFINE_F(GpuBench, gaussian_exact_variance)(benchmark::State& state) {
    const Variance v(1);
    measure(state, sizeof(kernels::GaussianVariance), 1, [&](cudaStream_t stream) {
        kernels::gaussian_exact_variance(v.parameter.data(), v.variance.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_exact_variance)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

BENCHMARK_DEFINE_F(GpuBench, gaussian_average_variance)(benchmark::State& state) {
    const Variance v(1);
    measure(state, sizeof(kernels::GaussianVariance), 1, [&](cudaStream_t stream) {
        kernels::gaussian_average_variance(v.variance.data(), 0.99, v.is_taken.data(),
                                           v.parameter.data(), 0, nullptr, stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_average_variance)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

BENCHMARK_DEFINE_F(GpuBench, gaussian_optimal_variance)(benchmark::State& state) {
    const Variance v(static_cast<int>(state.range(0)));
    measure(state, v.squares.bytes(), v.squares.size(), [&](cudaStream_t stream) {
        kernels::gaussian_optimal_variance(v.squares.data(), v.rows, Variance::kPixels, -9.2,
                                           v.parameter.data(), v.variance.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_optimal_variance)->Apply(row_counts);

BENCHMARK_DEFINE_F(GpuBench, gaussian_variance_gradient)(benchmark::State& state) {
    const Variance v(static_cast<int>(state.range(0)));
    measure(state, v.squares.bytes(), v.squares.size(), [&](cudaStream_t stream) {
        kernels::gaussian_variance_gradient(v.squares.data(), nullptr, v.rows, Variance::kPixels,
                                            1.0f / static_cast<float>(v.rows), v.variance.data(),
                                            v.d_parameter.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, gaussian_variance_gradient)->Apply(row_counts);

}  // namespace
}  // namespace vae::bench
