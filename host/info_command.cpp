// info and devices: what a run is, and what this machine can run on.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "host/commands.h"
#include "host/config_file.h"
#include "host/config_options.h"
#include "host/cuda_environment.h"
#include "host/cuda_module.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/loaded_run.h"
#include "host/metrics.h"
#include "host/output_layer.h"
#include "host/run_folder.h"
#include "host/spelling.h"
#include "host/version.h"

namespace vae {

namespace {

std::string size_text(double bytes) {
    if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
    if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
    return fmt::format("{} bytes", bytes);
}

// The rest of the run can be told all the same when they cannot be read.
void print_last_metrics(const RunFolder& folder, std::uint64_t step) {
    std::vector<std::string> lines;
    try {
        lines = metrics_lines_until(folder.metrics(), step);
    } catch (const InputError& error) {
        fmt::print("\nno metrics: {}\n", error.what());
    }
    if (lines.empty()) return;
    fmt::print("\nlast metrics:\n");
    for (std::size_t i = lines.size() - std::min<std::size_t>(lines.size(), 2); i < lines.size();
         ++i) {
        fmt::print("{}\n", lines[i]);
    }
}

void print_early_stopping(const Checkpoint& checkpoint) {
    const EarlyStopping& early = checkpoint.early_stopping;
    if (early.best_epoch == 0) return;
    fmt::print("best held-out -elbo {:.2f} in epoch {}; {} of {} without a better one\n\n",
               -early.best_elbo, early.best_epoch, early.stale_epochs,
               counted(checkpoint.config.train.patience, "epoch"));
}

// Of a Gaussian likelihood whose variance is learned.
void print_sigma(const Checkpoint& checkpoint, const ParameterLayout& layout) {
    const ModelConfig& model = checkpoint.config.model;
    if (!has_logvar(model)) return;
    const float parameter = checkpoint.state.evaluated_parameters()[layout.output_logvar.offset];
    fmt::print("sigma of the Gaussian likelihood: {:.6g}\n\n",
               sigma_of(model, static_cast<double>(parameter)));
}

int run_info(const std::string& run) {
    const std::filesystem::path path = find_checkpoint(run);
    const Checkpoint checkpoint = load_checkpoint(path);
    const ParameterLayout layout = checkpoint.layout();
    fmt::print("{}: step {}, examples of {}, written by vae {}, {}\n\n", path.string(),
               checkpoint.state.step, to_text(checkpoint.shape), checkpoint.program_version,
               size_text(static_cast<double>(std::filesystem::file_size(path))));
    print_early_stopping(checkpoint);
    print_sigma(checkpoint, layout);
    fmt::print("{}\n{:<24}{:<16}{:>12}\n", to_toml(checkpoint.config), "parameters", "shape",
               "count");
    std::size_t total = 0;
    for (const Tensor& tensor : layout.tensors()) {
        fmt::print("{:<24}{:<16}{:>12}\n", tensor.name, to_text(tensor.shape), tensor.size);
        total += tensor.size;
    }
    fmt::print("{:<24}{:<16}{:>12}\n", "total", "", total);
    std::error_code ignored;
    if (std::filesystem::is_directory(run, ignored)) {
        print_last_metrics(RunFolder{run}, checkpoint.state.step);
    }
    return 0;
}

struct DevicesOptions {
    explicit DevicesOptions(CLI::App& command) : config(command) {}

    ConfigOptions config;
    bool tune = false;
};

void print_plans(const TuningReport& report) {
    if (report.plans.empty()) return;
    const auto name_of_row = [](const TunedPlan& one) {
        return one.is_counted ? one.plan + " (as counted)" : one.plan;
    };
    std::size_t width = 16;
    const TunedPlan* kept = nullptr;
    double least = std::numeric_limits<double>::infinity();
    for (const TunedPlan& one : report.plans) {
        width = std::max(width, name_of_row(one).size());
        if (one.is_kept) kept = &one;
        if (one.problem.empty()) least = std::min(least, one.microseconds);
    }
    fmt::print("\n{:<{}}{:>12}\n", "plan", width, "us a step");
    for (const TunedPlan& one : report.plans) {
        if (one.problem.empty()) {
            fmt::print("{:<{}}{:>12.2f}\n", name_of_row(one), width, one.microseconds);
        } else {
            fmt::print("{:<{}}{:>12}  {}\n", one.plan, width, "failed", one.problem);
        }
    }
    if (kept == nullptr) return;
    fmt::print("train.plan = \"auto\" {} {} for such steps{}\n",
               report.file.empty() ? "would take" : "takes", kept->plan,
               kept->microseconds > least ? ", as it is within 2 % of the fastest" : "");
}

void print_tuning(const TuningReport& report) {
    std::size_t width = 16;
    for (const TunedProduct& one : report.products) width = std::max(width, one.product.size());
    fmt::print("\n{:<{}}{:>6}{:>7}{:>7}  {:<13}{:>9}{:>9}{:>7}{:>7}  {}\n", "product", width,
               "rows", "in", "out", "types", "us", "TFLOP/s", "nodes", "gain", "algorithm");
    for (const TunedProduct& one : report.products) {
        fmt::print("{:<{}}{:>6}{:>7}{:>7}  {:<13}{:>9.2f}{:>9.2f}{:>7}{:>7.2f}  {} (best of {})\n",
                   one.product, width, one.rows, one.in, one.out, one.types, one.microseconds,
                   one.teraflops, one.nodes, one.gain, one.algorithm, one.candidates);
    }
    print_plans(report);
    if (report.file.empty()) {
        fmt::print("not kept: neither $XDG_CACHE_HOME nor $HOME names a folder\n");
    } else {
        fmt::print("kept in {}, for every later run on this GPU\n", report.file);
    }
}

void tune(const DevicesOptions& options) {
    ConfigBuilder builder;
    options.config.apply(builder);
    const Config config = builder.finish();
    if (!cuda_status().reason.empty()) {
        throw RunError(fmt::format("--tune: {}", cuda_status().reason));
    }
    const Splits splits = load_splits(config.data, config.model);
    print_tuning(tune_cuda(config, {config.model, splits.train.shape.pixels()}, splits));
}

int run_devices(const DevicesOptions& options) {
    const Config config;
    const auto cpu = make_cpu_backend(config, ParameterLayout(config.model, 1));
    fmt::print("cpu   {}\n", cpu->device());
    const CudaStatus& status = cuda_status();
    for (std::size_t i = 0; i < status.devices.size(); ++i) {
        const CudaDevice& device = status.devices[i];
        constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
        fmt::print("cuda  {}: {}, compute capability {}.{}, {} multiprocessors, {:.1f} GiB\n", i,
                   device.name, device.major, device.minor, device.multiprocessors,
                   static_cast<double>(device.memory_bytes) / kGiB);
    }
    if (!status.reason.empty()) fmt::print("cuda  not usable: {}\n", status.reason);
    if (!status.runtime.empty()) {
        fmt::print("CUDA driver {}, runtime {}, cuBLASLt {}\n",
                   status.driver.empty() ? "none" : status.driver, status.runtime, status.cublaslt);
    }
    warn_of_cuda_environment();
    if (options.tune) tune(options);
    return 0;
}

}  // namespace

Command add_info_command(CLI::App& program) {
    CLI::App* command =
        program.add_subcommand("info", "settings, parameters and last metrics of a run");
    const auto run = std::make_shared<std::string>();
    command->add_option("RUN", *run, "a run's folder, or a checkpoint file")
        ->required()
        ->type_name("");
    return {command, [run] { return run_info(*run); }};
}

Command add_devices_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("devices", "the CPU and GPUs that can be used");
    const auto options = std::make_shared<DevicesOptions>(*command);
    const std::vector<CLI::Option*> of_settings = command->get_options();
    CLI::Option* const tune =
        command->add_flag("--tune", options->tune,
                          "measures the matrix products of a run of these settings on the first "
                          "GPU, and its steps in each plan, and keeps what is the fastest for "
                          "later runs");
    for (CLI::Option* option : of_settings) {
        if (option->get_name() != "--help") option->needs(tune);
    }
    return {command, [options] { return run_devices(*options); }};
}

}  // namespace vae
