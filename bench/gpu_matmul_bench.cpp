// Every matrix product of a training step of each workload, in each precision, with operands that
// are not in the L2 cache; and, as the ceiling, the fastest large square product of the same types
// in the same run.
#include "bench/gpu_matmul_bench.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/findings.h"
#include "bench/gpu_fixture.h"
#include "bench/machine_bench.h"
#include "bench/step_products.h"
#include "bench/workloads.h"
#include "host/backend.h"
#include "host/gpu/product_operands.h"

namespace vae::bench {
namespace {

using gpu::MatmulProduct;
using gpu::MatmulTypes;

// A stream with its workspace, and cuBLASLt.
class Bench {
  public:
    Bench() : lane_(stream_), stopwatch_(stream_.get()) {}

    // Large products that are enough to fill the device with work. Of both results that there are
    // of factors in bf16.
    static std::vector<StepProduct> squares(Precision precision) {
        const auto count = static_cast<int>(multiprocessors());
        std::vector<StepProduct> all;
        const auto add = [&](const char* name, MatmulTypes types, int size) {
            all.push_back({name, {.types = types, .rows = size, .in = size, .out = size}});
        };
        for (const int size : {32 * count, 64 * count}) {
            if (precision == Precision::bf16) {
                add("square", MatmulTypes::bf16_to_fp32, size);
                add("square_narrow", MatmulTypes::bf16, size);
            } else {
                add("square", precision == Precision::fp32 ? MatmulTypes::fp32 : MatmulTypes::tf32,
                    size);
            }
        }
        return all;
    }

    // Operations a second.
    double measure(benchmark::State& state, Precision precision, const MatmulProduct& product) {
        const double seconds = warm(product, [&](const auto& time) {
            double total = 0;
            for (auto _ : state) {
                const double elapsed = time();
                state.SetIterationTime(elapsed);
                total += elapsed;
            }
            return total;
        });
        const double flops = product.flops() * static_cast<double>(state.iterations()) / seconds;
        state.counters["flops"] = flops;
        state.counters["percent_of_best"] = 100 * flops / best(precision);
        return flops;
    }

  private:
    // use(time), where time() is the seconds of the product on operands of its own.
    template <class Use>
    double warm(const MatmulProduct& product, const Use& use) {
        if (!plans_) plans_.emplace();
        gpu::MatmulPlan& plan = plans_->of(product);
        gpu::ProductOperands operands(product, stream_);
        const auto run = [&](cudaStream_t) { operands.multiply(plans_->handle(), lane_, plan); };
        stopwatch_.warm_up(run);
        return use([&] { return stopwatch_.time(run); });
    }
    // Operations a second of the fastest of a few large square products.
    double best(Precision precision) {
        double& flops = best_[precision];
        if (flops > 0) return flops;
        for (const StepProduct& of : squares(precision)) {
            const double fastest = warm(of.product, [](const auto& time) {
                double least = time();
                for (int i = 0; i < 4; ++i) least = std::min(least, time());
                return least;
            });
            flops = std::max(flops, of.product.flops() / fastest);
        }
        return flops;
    }

    gpu::Stream stream_;
    gpu::MatmulLane lane_;
    Stopwatch stopwatch_;
    std::optional<gpu::MatmulPlans> plans_;  // made when they are first needed
    std::map<Precision, double> best_;
};

void add_all(Bench& bench) {
    constexpr int kIterations = 5;  // of a square, which takes long
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
        const std::string precision_name = name_of(precision);
        for (const StepProduct& of : Bench::squares(precision)) {
            const std::string name =
                fmt::format("{}/{}/{}", of.name, precision_name, of.product.rows);
            add_row(name, kIterations, [&bench, name, precision, of](benchmark::State& state) {
                findings().note(name, bench.measure(state, precision, of.product));
            });
        }
        for (const Workload& workload : workloads()) {
            for (const StepProduct& of : products_of(workload, precision)) {
                const std::string name =
                    fmt::format("product/{}/{}/{}/{}x{}x{}", workload.name, precision_name, of.name,
                                of.product.rows, of.product.in, of.product.out);
                add_benchmark(name, [&bench, precision, of](benchmark::State& state) {
                    bench.measure(state, precision, of.product);
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
