// Whole training steps through the driver's interface to a backend: vae_step_bench
// [--backend=auto|cuda|cpu|cpu-double] [Google Benchmark's options], or --print-config=WORKLOAD,
// which prints that workload's settings as a file for --config and ends. Threads of the CPU:
// OMP_NUM_THREADS.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/training_loop.h"
#include "bench/workloads.h"
#include "host/config_file.h"
#include "host/error.h"

namespace vae::bench {
namespace {

struct Options {
    std::string backend = "auto";
    std::string print_config;
};

// What benchmarks keep between the library's calls of one of them: it calls each several times to
// learn how many iterations to take.
class Bench {
  public:
    explicit Bench(std::string backend) : backend_(std::move(backend)) {}

    const Splits& images(const Workload& workload) {
        auto& splits = images_[{workload.shape.pixels(), workload.examples}];
        if (!splits) splits = random_images(workload.shape, workload.examples);
        return *splits;
    }
    // The loop of the benchmark that last asked is kept.
    TrainingLoop& loop(const Workload& workload, const Config& config) {
        std::string key = to_toml(config) + workload.name;
        if (key != key_) {
            loop_.reset();
            loop_ = std::make_unique<TrainingLoop>(backend_, config, images(workload));
            key_ = std::move(key);
            loop_->train(loop_->many_steps());  // the first ones also prepare
        }
        return *loop_;
    }
    // Of this backend, with nothing kept: for what is measured from the start.
    TrainingLoop fresh_loop(const Workload& workload, const Config& config) {
        loop_.reset();
        key_.clear();
        return {backend_, config, images(workload)};
    }

  private:
    std::string backend_;
    std::map<std::pair<std::size_t, std::size_t>, std::optional<Splits>> images_;
    std::string key_;
    std::unique_ptr<TrainingLoop> loop_;
};

using Settings = std::vector<std::string>;

// An iteration has trained so many steps.
void count_steps(benchmark::State& state, std::uint64_t steps, const Config& config,
                 std::size_t pixels) {
    using benchmark::Counter;
    const auto count = static_cast<double>(steps) * static_cast<double>(state.iterations());
    state.SetItemsProcessed(state.iterations() *
                            static_cast<std::int64_t>(steps * config.train.batch));
    state.counters["steps_an_iteration"] = static_cast<double>(steps);
    state.counters["us_per_step"] = Counter(count / 1e6, Counter::kIsRate | Counter::kInvert);
    state.counters["flops"] = Counter(count * step_flops(config, pixels), Counter::kIsRate);
}

// Each iteration is some chunks of steps, from the first call to the last losses on the host.
void train_step(benchmark::State& state, Bench& bench, const Workload& workload,
                const Config& config) {
    TrainingLoop& loop = bench.loop(workload, config);
    for (auto _ : state) loop.train(loop.many_steps());
    count_steps(state, loop.many_steps(), config, workload.shape.pixels());
}

void epoch(benchmark::State& state, Bench& bench, const Workload& workload, const Config& config) {
    TrainingLoop& loop = bench.loop(workload, config);
    for (auto _ : state) loop.train(loop.epoch_steps());
    count_steps(state, loop.epoch_steps(), config, workload.shape.pixels());
}

// From no backend to the first step's loss; a GPU's context is there after the first of them.
void start_up(benchmark::State& state, Bench& bench, const Workload& workload,
              const Config& config) {
    bench.images(workload);
    for (auto _ : state) {
        bench.fresh_loop(workload, config).train(1);
    }
}

// Draws of z for log p(x) by importance sampling: items are draws.
void draw(benchmark::State& state, Bench& bench, const Workload& workload, const Config& config) {
    constexpr std::uint32_t kExamples = 100;
    constexpr std::uint32_t kDraws = 5000;
    TrainingLoop& loop = bench.loop(workload, config);
    std::vector<std::uint32_t> rows(kExamples);
    for (std::uint32_t i = 0; i < kExamples; ++i) rows[i] = i;
    double sum = 0;
    for (auto _ : state) {
        loop.backend().draw({.split = Split::train, .rows = rows, .draws = kDraws, .seed = 1},
                            [&sum](const DrawBlock& block) { sum += block.recon.front(); });
    }
    benchmark::DoNotOptimize(sum);
    state.SetItemsProcessed(state.iterations() * kExamples * kDraws);
}

void evaluate(benchmark::State& state, Bench& bench, const Workload& workload,
              const Config& config) {
    TrainingLoop& loop = bench.loop(workload, config);
    for (auto _ : state) {
        benchmark::DoNotOptimize(loop.backend().evaluate(Split::train, 1.0));
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(workload.examples));
}

using Run = void (*)(benchmark::State&, Bench&, const Workload&, const Config&);

// A setting that the backend refuses is an error of that benchmark alone.
benchmark::internal::Benchmark* add(const std::string& name, Run run, Bench& bench,
                                    const Workload& workload, const Settings& settings) {
    const auto body = [run, &bench, &workload, settings](benchmark::State& state) {
        try {
            run(state, bench, workload, config_of(workload, settings));
        } catch (const std::exception& error) {
            state.SkipWithError(error.what());
        }
    };
    return benchmark::RegisterBenchmark(name.c_str(), body)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

void add_steps(Bench& bench, const Workload& workload, bool is_gpu) {
    const std::string name = "train_step/" + workload.name;
    if (!is_gpu) {
        add(name, train_step, bench, workload, {});
        return;
    }
    // Those that there are beside that of `auto`, which is cublas where it is no ReLU.
    std::vector<std::string> plans = {"fused"};
    if (config_of(workload).model.activation == Activation::relu) {
        plans = {"cublas", "epilogue", "fused"};
    }
    for (const std::string precision : {"fp32", "tf32", "bf16"}) {
        const Settings settings = {"train.precision=" + precision};
        add(fmt::format("{}/{}", name, precision), train_step, bench, workload, settings);
        for (const std::string& plan : plans) {
            Settings of_plan = settings;
            of_plan.push_back("train.plan=" + plan);
            add(fmt::format("{}/{}/{}", name, precision, plan), train_step, bench, workload,
                of_plan);
        }
    }
}

void add_all(Bench& bench, const std::string& backend) {
    const bool is_gpu = backend == "cuda";
    for (const Workload& each : workloads()) {
        if (is_gpu || each.name != "L") add_steps(bench, each, is_gpu);
    }
    const Workload& small = workload("S");
    add("train_step/S/binarized", train_step, bench, small, {"data.binarize=dynamic"});
    if (is_gpu) {  // over train_step/S/tf32: what the steps wait for their examples
        add("train_step/S/streamed", train_step, bench, small,
            {"train.precision=tf32", "data.placement=streamed"});
    }
    add("epoch/S", epoch, bench, small, {});
    for (const int batch : {20, 64, 128, 256, 512, 1024, 2048, 4096, 8192}) {
        if (!is_gpu && batch > 1024) break;
        add(fmt::format("train_step/S/batch:{}", batch), train_step, bench, small,
            {fmt::format("train.batch={}", batch)});
    }
    for (const Workload& each : workloads()) {
        if (is_gpu || each.name != "L") {
            add("start_up/" + each.name, start_up, bench, each, {})->Iterations(1);
        }
    }
    add("evaluate/S", evaluate, bench, small, {});
    add("draw/S", draw, bench, small, {});
}

// Takes our own options out of argv.
Options take_options(int& argc, char** argv) {
    Options options;
    const auto take = [](std::string_view argument, std::string_view option, std::string& value) {
        if (!argument.starts_with(option)) return false;
        value = argument.substr(option.size());
        return true;
    };
    int kept = 1;
    for (int i = 1; i < argc; ++i) {
        if (take(argv[i], "--backend=", options.backend)) continue;
        if (take(argv[i], "--print-config=", options.print_config)) continue;
        argv[kept++] = argv[i];
    }
    argc = kept;
    return options;
}

int run(int argc, char** argv) {
    const Options options = take_options(argc, argv);
    if (!options.print_config.empty()) {
        fmt::print("{}", to_toml(config_of(workload(options.print_config))));
        return 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    // The smallest of backends says which one it is.
    std::string backend;
    {
        const Workload tiny = {"tiny", {1, 4, 1}, 4, {"model.encoder_hidden=4", "train.batch=4"}};
        const Splits splits = random_images(tiny.shape, tiny.examples);
        TrainingLoop loop(options.backend, config_of(tiny), splits);
        backend = loop.backend().name();
        benchmark::AddCustomContext("backend", loop.note());
    }
    Bench bench(backend);
    add_all(bench, backend);
    const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return ran > 0 ? 0 : 1;
}

}  // namespace
}  // namespace vae::bench

int main(int argc, char** argv) {
    try {
        return vae::bench::run(argc, argv);
    } catch (const vae::InputError& error) {
        std::cerr << "vae_step_bench: error: " << error.what() << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "vae_step_bench: error: " << error.what() << '\n';
        return 1;
    }
}
