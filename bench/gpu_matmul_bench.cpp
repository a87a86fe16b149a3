// Every matrix product of a training step of each workload, in each precision, with operands that
// are not in the L2 cache; and, as the ceiling, the fastest large square product of the same types
// in the same run.
#include "bench/gpu_matmul_bench.h"

#include <benchmark/benchmark.h>
#include <cuda_bf16.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bench/gpu_fixture.h"
#include "bench/workloads.h"
#include "host/gpu/matmul.h"
#include "host/gpu/matmul_product.h"

namespace vae::bench {
namespace {

using gpu::MatmulKind;

// A dense layer's product of a step. Of bf16 operands, whether the result is bf16 too.
struct Case {
    std::string name;
    MatmulKind kind = MatmulKind::forward;
    int rows = 0;
    int in = 0;
    int out = 0;
    bool is_narrow = false;
};

double flops_of(const Case& of) {
    return 2.0 * of.rows * of.in * of.out;
}

// All products of a chain of layers over so many rows; `narrow` says of each layer's output whether
// bf16 training keeps it so.
void add_chain(std::vector<Case>& cases, const std::string& name, int rows,
               const std::vector<int>& widths, const std::vector<bool>& narrow) {
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
        const std::string layer = fmt::format("{}.{}", name, i);
        const int in = widths[i];
        const int out = widths[i + 1];
        cases.push_back({layer + "/forward", MatmulKind::forward, rows, in, out, narrow[i]});
        const bool is_pixels = i == 0 && name == "encoder";  // nobody needs their gradient
        const bool is_latent = i == 0 && name == "decoder";  // whose gradient is summed in float
        if (!is_pixels) {
            cases.push_back(
                {layer + "/input_gradient", MatmulKind::backward_input, rows, in, out, !is_latent});
        }
        cases.push_back(
            {layer + "/weight_gradient", MatmulKind::backward_weight, rows, in, out, false});
    }
}

std::vector<Case> products_of(const Workload& workload) {
    const Config config = config_of(workload);
    const auto examples = static_cast<int>(config.train.batch);
    const auto latent = static_cast<int>(config.model.latent);
    const auto pixels = static_cast<int>(workload.shape.pixels());
    const auto& encoder_hidden = config.model.encoder_hidden;
    const auto& decoder_hidden = config.model.decoder_hidden;
    std::vector<int> encoder = {pixels};
    encoder.insert(encoder.end(), encoder_hidden.begin(), encoder_hidden.end());
    encoder.push_back(2 * latent);
    std::vector<int> decoder = {latent};
    decoder.insert(decoder.end(), decoder_hidden.begin(), decoder_hidden.end());
    decoder.push_back(pixels);
    // The heads and the output stay FP32.
    std::vector<bool> encoder_narrow(encoder_hidden.size(), true);
    encoder_narrow.push_back(false);
    std::vector<bool> decoder_narrow(decoder_hidden.size(), true);
    decoder_narrow.push_back(false);
    std::vector<Case> cases;
    add_chain(cases, "encoder", examples, encoder, encoder_narrow);
    add_chain(cases, "decoder", examples * static_cast<int>(config.objective.samples), decoder,
              decoder_narrow);
    return cases;
}

// One product's operands and its result.
template <class In, class Out>
class Operands {
  public:
    Operands(const Case& of, const gpu::Matmul& matmul, const gpu::MatmulLane& lane)
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

    Case case_;
    const gpu::Matmul& matmul_;
    const gpu::MatmulLane& lane_;
    DeviceBuffer<In> a_;
    DeviceBuffer<In> b_;
    DeviceBuffer<Out> d_;
};

// A stream with its workspace, and cuBLASLt in one precision.
class Bench {
  public:
    Bench() : square_(large_square()), lane_(stream_), stopwatch_(stream_.get()) {}

    int square() const { return square_; }

    void measure(benchmark::State& state, Precision precision, const Case& of) {
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
    }

  private:
    // Rows and columns that are enough to fill the device with work.
    static int large_square() {
        int multiprocessors = 0;
        kernels::cuda_check(
            cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0),
            "cudaDeviceGetAttribute");
        return 64 * multiprocessors;
    }
    const gpu::Matmul& matmul(Precision precision) {
        auto& made = matmuls_[precision];
        if (made == nullptr) made = std::make_unique<gpu::Matmul>(precision);
        return *made;
    }
    template <class Use>
    double of_types(Precision precision, const Case& of, const Use& use) {
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
        for (const bool is_narrow : {false, true}) {
            const Case of = {"square", MatmulKind::forward, square_, square_, square_, is_narrow};
            const double fastest = of_types(precision, of, [&](const auto& operands) {
                const auto run = [&operands](cudaStream_t) { operands.run(); };
                stopwatch_.warm_up(run);
                double least = stopwatch_.time(run);
                for (int i = 0; i < 9; ++i) least = std::min(least, stopwatch_.time(run));
                return least;
            });
            flops = std::max(flops, flops_of(of) / fastest);
        }
        return flops;
    }

    int square_;
    gpu::Stream stream_;
    gpu::MatmulLane lane_;
    Stopwatch stopwatch_;
    std::map<Precision, std::unique_ptr<gpu::Matmul>> matmuls_;
    std::map<Precision, double> best_;
};

void add_all(Bench& bench) {
    const int square = bench.square();
    const auto add = [&bench](const std::string& name, Precision precision, const Case& of) {
        const auto body = [&bench, precision, of](benchmark::State& state) {
            try {
                bench.measure(state, precision, of);
            } catch (const std::exception& error) {
                state.SkipWithError(error.what());
            }
        };
        benchmark::RegisterBenchmark(name.c_str(), body)
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond);
    };
    const std::vector<std::pair<std::string, Precision>> precisions = {
        {"fp32", Precision::fp32}, {"tf32", Precision::tf32}, {"bf16", Precision::bf16}};
    for (const auto& [precision_name, precision] : precisions) {
        add(fmt::format("product/square/{}", precision_name), precision,
            {"square", MatmulKind::forward, square, square, square, false});
        for (const Workload& workload : workloads()) {
            for (const Case& of : products_of(workload)) {
                add(fmt::format("product/{}/{}/{}/{}x{}x{}", workload.name, precision_name, of.name,
                                of.rows, of.in, of.out),
                    precision, of);
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
