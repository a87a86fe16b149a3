#include <fmt/format.h>

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "host/commands.h"
#include "host/config_options.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/evaluation.h"
#include "host/npy.h"
#include "host/run_folder.h"

namespace vae {

namespace {

struct EvaluateOptions {
    RunOptions run;
    std::string data;
    std::string split;
    std::uint32_t importance_draws = 0;
    std::size_t importance_examples = 0;
    std::optional<std::uint64_t> seed;
    std::string log_px;
    bool json = false;
};

void check_log_px(const EvaluateOptions& options, const LoadedRun& run) {
    if (options.importance_draws == 0) {
        if (options.log_px.empty() && options.importance_examples == 0) return;
        throw InputError(
            fmt::format("{} needs --importance-samples K",
                        options.log_px.empty() ? "--importance-examples" : "--log-px"));
    }
    if (options.log_px.empty()) return;
    check_npy("--log-px", options.log_px);
    std::vector<std::filesystem::path> inputs =
        paths_read(options.data.empty() ? run.checkpoint.config.data.source : options.data);
    inputs.push_back(find_checkpoint(options.run.run));
    check_output("--log-px", options.log_px, inputs);
}

void write_log_px(const std::string& file, const ImportanceEstimate& estimate) {
    const std::vector<float> values(estimate.log_px.begin(), estimate.log_px.end());
    const std::size_t shape[] = {values.size()};
    write_npy(file, values, shape);
}

int run_evaluate(const EvaluateOptions& options) {
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    check_log_px(options, run);
    const RunData data = load_run_data(run.checkpoint, options.data, options.split);
    const Config& config = run.checkpoint.config;
    if (options.importance_draws > 0) {
        DataConfig source = config.data;
        source.source = data.source;
        for (const std::string& warning :
             data_warnings(data.splits, source, config.model.likelihood)) {
            fmt::print(stderr, "vae: warning: {}\n", warning);
        }
    }
    run.backend->set_data(data.splits);
    const Evaluation evaluation = evaluate_run(run, data,
                                               {.importance_draws = options.importance_draws,
                                                .importance_examples = options.importance_examples,
                                                .seed = options.seed.value_or(config.train.seed)});
    if (!options.log_px.empty()) write_log_px(options.log_px, *evaluation.importance);
    if (options.json) {
        nlohmann::ordered_json line = {{"run", options.run.run}};
        line.update(evaluation_json(evaluation, run, data));
        // Paths may be any bytes; JSON is UTF-8.
        fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
        fmt::print("{}", evaluation_text(evaluation, run, data));
    }
    return 0;
}

void add_importance_options(CLI::App& command, EvaluateOptions& options) {
    command
        .add_option("--importance-samples", options.importance_draws,
                    "draws of z for each example, to estimate log p(x); none if not given")
        ->check(whole_number(1, kMostDraws))
        ->type_name("K");
    command
        .add_option("--importance-examples", options.importance_examples,
                    "log p(x) of the first N examples alone")
        ->check(whole_number(1, std::numeric_limits<std::uint32_t>::max()))
        ->type_name("N");
    command.add_option("--log-px", options.log_px, "also write log p(x) of each example (.npy)")
        ->type_name("FILE");
    command
        .add_option("--seed", options.seed,
                    "of the draws for log p(x) and the latent code; the run's if not given")
        ->check(whole_number(0, std::numeric_limits<std::uint64_t>::max()))
        ->type_name("N");
}

}  // namespace

void RunOptions::add_to(CLI::App& command) {
    command.add_option("RUN", run, "a run's folder, or a checkpoint file")
        ->required()
        ->type_name("");
    add_backend_option(command, "--backend", backend, "");
}

Command add_evaluate_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand(
        "evaluate", "bounds, log p(x) and the latent code of a trained run over a split");
    const auto options = std::make_shared<EvaluateOptions>();
    options->run.add_to(*command);
    command->add_option("--data", options->data, "other data than the run's")->type_name("SPEC");
    command
        ->add_option("--split", options->split,
                     "train, validation or test; else validation where there is one, else test, "
                     "or all of a file or folder given by --data")
        ->type_name("NAME");
    add_importance_options(*command, *options);
    command->add_flag("--json", options->json, "one JSON object instead of text");
    return {command, [options] { return run_evaluate(*options); }};
}

}  // namespace vae
