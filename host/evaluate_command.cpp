#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "host/commands.h"
#include "host/config_options.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/loaded_run.h"
#include "host/metrics.h"

namespace vae {

namespace {

struct EvaluateOptions {
    RunOptions run;
    std::string data;
    std::string split;
    bool json = false;
};

Split chosen_split(const std::string& name, const Splits& splits, const std::string& source) {
    if (name.empty()) return splits.held_out();
    for (const Split split : {Split::train, Split::validation, Split::test}) {
        if (name != name_of(split)) continue;
        if (splits.of(split).size == 0) {
            throw InputError(fmt::format("--split {}: {} has no such examples", name, source));
        }
        return split;
    }
    throw InputError(
        fmt::format("--split {}: there is no such split; use train, validation or test", name));
}

void print_json(const EvaluateOptions& options, const LoadedRun& run, const std::string& source,
                Split split, const LossTotals& totals) {
    const LossMeans mean = means(totals);
    nlohmann::ordered_json line;
    line["run"] = options.run.run;
    line["step"] = run.checkpoint.state.step;
    line["data"] = source;
    line["split"] = name_of(split);
    line["examples"] = totals.examples;
    line["recon"] = mean.recon;
    line["kl"] = mean.kl;
    line["elbo"] = mean.elbo;
    line["loss"] = mean.loss;
    line["beta"] = run.checkpoint.config.train.beta;
    line["backend"] = run.backend->name();
    fmt::print("{}\n", line.dump());
}

void print_text(const LoadedRun& run, const std::string& source, Split split,
                const LossTotals& totals) {
    const LossMeans mean = means(totals);
    fmt::print("backend: {}\n", run.note);
    fmt::print("{}, {} split, {} examples, after step {}; means in nats per example\n", source,
               name_of(split), totals.examples, run.checkpoint.state.step);
    fmt::print("recon  {:.4f}\nkl     {:.4f}\nelbo   {:.4f}\nloss   {:.4f}\nbeta   {}\n",
               mean.recon, mean.kl, mean.elbo, mean.loss, run.checkpoint.config.train.beta);
}

int run_evaluate(const EvaluateOptions& options) {
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    DataConfig data = run.checkpoint.config.data;
    if (!options.data.empty()) data.source = options.data;
    const Splits splits = load_splits(data, run.checkpoint.config.model.likelihood);
    const Split split = chosen_split(options.split, splits, data.source);
    check_fits(splits.of(split), data.source, run.checkpoint);
    run.backend->set_data(splits);
    const LossTotals totals = run.backend->evaluate(split, run.checkpoint.config.train.beta);
    if (options.json) {
        print_json(options, run, data.source, split, totals);
    } else {
        print_text(run, data.source, split, totals);
    }
    return 0;
}

}  // namespace

void RunOptions::add_to(CLI::App& command) {
    command.add_option("RUN", run, "a run's folder, or a checkpoint file")
        ->required()
        ->type_name("");
    command.add_option("--backend", backend, "auto, cuda, cpu or cpu-double")
        ->check(one_of({"auto", "cuda", "cpu", "cpu-double"}))
        ->type_name("NAME");
}

Command add_evaluate_command(CLI::App& program) {
    CLI::App* command =
        program.add_subcommand("evaluate", "recon, kl and elbo of a trained run over a split");
    const auto options = std::make_shared<EvaluateOptions>();
    options->run.add_to(*command);
    command->add_option("--data", options->data, "other data than the run's")->type_name("SPEC");
    command
        ->add_option("--split", options->split,
                     "train, validation or test; else validation where there is one, else test")
        ->type_name("NAME");
    command->add_flag("--json", options->json, "one JSON object instead of text");
    return {command, [options] { return run_evaluate(*options); }};
}

}  // namespace vae
