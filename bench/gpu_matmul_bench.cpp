// Every matrix product of a training step of each workload, in each precision, with operands that
// are not in the L2 cache; and, as the ceiling, the fastest large square product of the same types
// in the same run.
#include "bench/gpu_matmul_bench.h"

#include <benchmark/benchmark.h>
#include <cuda_bf16.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "bench/findings.h"
#include "bench/gpu_fixture.h"
#include "bench/machine_bench.h"
#include "bench/step_products.h"
#include "bench/workloads.h"
#include "host/backend.h"
#include "host/gpu/matmul.h"
#include "host/gpu/matmul_product.h"

namespace vae::bench {
namespace {

using gpu::MatmulKind;

// One product's operands and its result.
template <class In, class Out>
class Operands {
  public:
    Operands(const StepProduct& of, const gpu::Matmul& matmul, const gpu::MatmulLane& lane)
        : case_(of),
          matmul_(matmul),
          lane_(lane),
          a_(random_buffer<In>(elements(of.rows, a_cols()))),
          b_(random_buffer<In>(elements(b_rows(), b_cols()))),
          d_(result_size()) {}

    void run() const {
        switch (case_.kind) {
            case MatmulKind::forward:
                return matmul_.forward(lane_, a_.data(), b_.data(), case_.rows, case_.in, case_.out,
                                       d_.data());
            case MatmulKind::backward_input:
                return matmul_.backward_input(lane_, a_.data(), b_.data(), case_.rows, case_.in,
                                              case_.out, d_.data());
            case MatmulKind::backward_weight:
                if constexpr (std::is_same_v<Out, float>) {
                    return matmul_.backward_weight(lane_, a_.data(), b_.data(), case_.rows,
                                                   case_.in, case_.out, d_.data());
                }
        }
    }

  private:
    static std::size_t elements(int rows, int cols) {
        return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
    }
    // x of the forward product, else the gradient of the layer's output.
    int a_cols() const { return case_.kind == MatmulKind::forward ? case_.in : case_.out; }
    // The weights, but x of their own gradient.
    int b_rows() const {
        return case_.kind == MatmulKind::backward_weight ? case_.rows : case_.out;
    }
    int b_cols() const { return case_.in; }
    std::size_t result_size() const {
        switch (case_.kind) {
            case MatmulKind::forward:
                return elements(case_.rows, case_.out);
            case MatmulKind::backward_input:
                return elements(case_.rows, case_.in);
            default:
                return elements(case_.out, case_.in);
        }
    }

    StepProduct case_;
    const gpu::Matmul& matmul_;
    const gpu::MatmulLane& lane_;
    DeviceBuffer<In> a_;
    DeviceBuffer<In> b_;
    DeviceBuffer<Out> d_;
};

// A stream with its workspace, and cuBLASLt in one precision.
class Bench {
  public:
    Bench() : lane_(stream_), stopwatch_(stream_.get()) {}

    // Rows and columns of squares that are enough to fill the device with work.
    static std::vector<int> large_squares() {
        const auto count = static_cast<int>(multiprocessors());
        return {32 * count, 64 * count};
    }

    // Of both results that there are of factors in bf16.
    static std::vector<StepProduct> squares(Precision precision) {
        std::vector<StepProduct> all;
        for (const int size : large_squares()) {
            for (const bool is_narrow : {false, true}) {
                if (is_narrow && precision != Precision::bf16) continue;
                all.push_back({is_narrow ? "square_narrow" : "square", MatmulKind::forward, size,
                               size, size, is_narrow});
            }
        }
        return all;
    }

    // Operations a second.
    double measure(benchmark::State& state, Precision precision, const StepProduct& of) {
        const double seconds = of_types(precision, of, [&](const auto& operands) {
            const auto run = [&operands](cudaStream_t) { operands.run(); };
            stopwatch_.warm_up(run);
            double total = 0;
            for (auto _ : state) {
                const double elapsed = stopwatch_.time(run);
                state.SetIterationTime(elapsed);
                total += elapsed;
            }
            return total;
        });
        const double flops = flops_of(of) * static_cast<double>(state.iterations()) / seconds;
        state.counters["flops"] = flops;
        state.counters["percent_of_best"] = 100 * flops / best(precision);
        return flops;
    }

  private:
    const gpu::Matmul& matmul(Precision precision) {
        auto& made = matmuls_[precision];
        if (made == nullptr) made = std::make_unique<gpu::Matmul>(precision);
        return *made;
    }
    template <class Use>
    double of_types(Precision precision, const StepProduct& of, const Use& use) {
        const gpu::Matmul& with = matmul(precision);
        if (precision != Precision::bf16) return use(Operands<float, float>(of, with, lane_));
        if (of.is_narrow) {
            return use(Operands<__nv_bfloat16, __nv_bfloat16>(of, with, lane_));
        }
        return use(Operands<__nv_bfloat16, float>(of, with, lane_));
    }
    // Operations a second of the fastest of a few large square products.
    double best(Precision precision) {
        double& flops = best_[precision];
        if (flops > 0) return flops;
        for (const StepProduct& of : squares(precision)) {
            const double fastest = of_types(precision, of, [&](const auto& operands) {
                const auto run = [&operands](cudaStream_t) { operands.run(); };
                stopwatch_.warm_up(run);
                double least = stopwatch_.time(run);
                for (int i = 0; i < 4; ++i) least = std::min(least, stopwatch_.time(run));
                return least;
            });
            flops = std::max(flops, flops_of(of) / fastest);
        }
        return flops;
    }

    gpu::Stream stream_;
    gpu::MatmulLane lane_;
    Stopwatch stopwatch_;
    std::map<Precision, std::unique_ptr<gpu::Matmul>> matmuls_;
    std::map<Precision, double> best_;
};

void add_all(Bench& bench) {
    constexpr int kIterations = 5;  // of a square, which takes long
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
        const std::string precision_name = name_of(precision);
        for (const StepProduct& of : Bench::squares(precision)) {
            const std::string name = fmt::format("{}/{}/{}", of.name, precision_name, of.rows);
            add_row(name, kIterations, [&bench, name, precision, of](benchmark::State& state) {
                findings().note(name, bench.measure(state, precision, of));
            });
        }
        for (const Workload& workload : workloads()) {
            for (const StepProduct& of : products_of(workload)) {
                const std::string name =
                    fmt::format("product/{}/{}/{}/{}x{}x{}", workload.name, precision_name, of.name,
                                of.rows, of.in, of.out);
                add_benchmark(name, [&bench, precision, of](benchmark::State& state) {
                    bench.measure(state, precision, of);
                });
            }
        }
    }
}

}  // namespace

void add_products() {
    static std::unique_ptr<Bench> bench;  // the benchmarks run when this has returned
    bench = std::make_unique<Bench>();
    add_all(*bench);
}

}  // namespace vae::bench
