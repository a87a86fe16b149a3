#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "host/backend_choice.h"
#include "host/commands.h"
#include "host/config_options.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/gradient_variance.h"
#include "host/loaded_run.h"
#include "host/progress.h"
#include "host/run_folder.h"
#include "host/spelling.h"

namespace vae {

namespace {

constexpr std::uint32_t kMostRepeats = 1'000'000;
constexpr std::uint32_t kMostSamples = 1'000;
constexpr std::uint32_t kMostExamples = 1'000'000;

struct VarianceOptions {
    RunOptions run;
    std::uint32_t examples = 100;
    std::uint32_t samples = 8;
    std::uint32_t repeats = 100;
    std::string out;
    bool json = false;
};

void check_picture(const VarianceOptions& options, const Checkpoint& checkpoint) {
    if (options.out.empty()) return;
    if (std::filesystem::path(options.out).extension() != ".svg") {
        throw InputError(fmt::format("--out {}: must end in .svg", options.out));
    }
    std::vector<std::filesystem::path> inputs = paths_read(checkpoint.config.data.source);
    inputs.push_back(find_checkpoint(options.run.run));
    check_output("--out", options.out, inputs);
}

// The run's settings, but for what must not change from one repeat to the next.
Config fixed_config(const Checkpoint& checkpoint, const VarianceOptions& options) {
    Config config = checkpoint.config;
    if (config.data.binarize == Binarize::dynamic) config.data.binarize = Binarize::fixed;
    config.train.batch = options.examples;
    config.train.micro_batches = 1;  // the gradient of all of them at once
    return config;
}

std::vector<GradientScatter> measure(const VarianceOptions& options, const Checkpoint& checkpoint,
                                     const Config& config, const Splits& splits,
                                     std::span<const std::uint32_t> rows) {
    const auto estimators = gradient_estimators(config, options.samples);
    const ParameterLayout layout = checkpoint.layout();
    Progress progress = Progress::standard_error();
    std::vector<GradientScatter> all;
    for (std::size_t i = 0; i < estimators.size(); ++i) {
        Config with = config_for(options.run.backend, config);
        with.objective = estimators[i].objective;
        const ChosenBackend chosen = choose_backend(options.run.backend, with, layout);
        chosen.backend->set_data(splits);
        all.push_back(gradient_scatter(
            *chosen.backend, estimators[i], checkpoint.state, rows, config.train.beta,
            options.repeats,
            ShownWork(progress,
                      fmt::format("{}/{}: {}", i + 1, estimators.size(), estimators[i].name),
                      options.repeats, "repeats")));
    }
    return all;
}

int run_variance(const VarianceOptions& options) {
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    const Checkpoint& checkpoint = run.checkpoint;
    check_picture(options, checkpoint);
    const Config config = fixed_config(checkpoint, options);
    const Splits splits = load_run_splits(config.data, checkpoint);
    std::vector<std::uint32_t> rows(std::min<std::size_t>(options.examples, splits.train.size));
    std::iota(rows.begin(), rows.end(), 0U);
    const auto all = measure(options, checkpoint, config, splits, rows);
    const std::string what =
        fmt::format("{} of {}, {} repeats, after step {}", counted(rows.size(), "training example"),
                    config.data.source, options.repeats, checkpoint.state.step);
    if (!options.out.empty()) {
        write_file_atomically(
            options.out,
            scatter_svg(all, fmt::format("variance of the gradient: {}, {} repeats, after step {}",
                                         counted(rows.size(), "training example"), options.repeats,
                                         checkpoint.state.step)));
    }
    if (options.json) {
        nlohmann::ordered_json out;
        out["run"] = options.run.run;
        out["step"] = checkpoint.state.step;
        out["data"] = config.data.source;
        out["examples"] = rows.size();
        out["repeats"] = options.repeats;
        out["beta"] = config.train.beta;
        out["backend"] = run.backend->name();
        out["parameters"] = "raw";
        out["estimators"] = scatter_json(all);
        fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
        return 0;
    }
    fmt::print("backend: {}\n{}; beta {}\n{}", run.note, what, config.train.beta,
               scatter_table(all));
    if (!options.out.empty()) fmt::print("wrote the picture to {}\n", options.out);
    return 0;
}

}  // namespace

Command add_variance_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand(
        "variance", "how much each estimator of the gradient scatters, on the same examples");
    const auto options = std::make_shared<VarianceOptions>();
    options->run.add_to(*command);
    command->add_option("--examples", options->examples, "the first N of the training examples")
        ->check(whole_number(1, kMostExamples))
        ->capture_default_str()
        ->type_name("N");
    command->add_option("--samples", options->samples, "draws of z where there are many")
        ->check(whole_number(2, kMostSamples))
        ->capture_default_str()
        ->type_name("S");
    command->add_option("--repeats", options->repeats, "gradients of each estimator")
        ->check(whole_number(2, kMostRepeats))
        ->capture_default_str()
        ->type_name("N");
    command->add_option("--out", options->out, "also a picture (.svg)")->type_name("FILE");
    command->add_flag("--json", options->json, "one JSON object instead of a table");
    return {command, [options] { return run_variance(*options); }};
}

}  // namespace vae
