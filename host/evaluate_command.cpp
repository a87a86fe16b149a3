#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "host/commands.h"
#include "host/config_options.h"
#include "host/loaded_run.h"
#include "host/metrics.h"
#include "host/spelling.h"

namespace vae {

namespace {

struct EvaluateOptions {
    RunOptions run;
    std::string data;
    std::string split;
    bool json = false;
};

void print_json(const EvaluateOptions& options, const LoadedRun& run, const RunData& data,
                const LossTotals& totals) {
    const LossMeans mean = means(totals);
    nlohmann::ordered_json line;
    line["run"] = options.run.run;
    line["step"] = run.checkpoint.state.step;
    line["data"] = data.source;
    line["split"] = data.split_name();
    line["examples"] = totals.examples;
    line["recon"] = mean.recon;
    line["kl"] = mean.kl;
    line["elbo"] = mean.elbo;
    line["loss"] = mean.loss;
    line["beta"] = run.checkpoint.config.train.beta;
    line["kl_is"] = kl_is(run.checkpoint.config);
    line["backend"] = run.backend->name();
    line["parameters"] = run.checkpoint.config.train.ema > 0 ? "ema" : "raw";
    // Paths may be any bytes; JSON is UTF-8.
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const LoadedRun& run, const RunData& data, const LossTotals& totals) {
    const LossMeans mean = means(totals);
    const std::string examples = counted(totals.examples, "example");
    const std::string what =
        data.is_all ? fmt::format("all {} of {}", examples, data.source)
                    : fmt::format("{}, {} split, {}", data.source, data.split_name(), examples);
    fmt::print("backend: {}\n", run.note);
    const std::string note = parameters_note(run.checkpoint.config.train);
    if (!note.empty()) fmt::print("parameters: {}\n", note);
    fmt::print("{}, after step {}; means in nats per example; {}\n", what,
               run.checkpoint.state.step, kl_note(run.checkpoint.config));
    fmt::print("recon  {:.4f}\nkl     {:.4f}\nelbo   {:.4f}\nloss   {:.4f}\nbeta   {}\n",
               mean.recon, mean.kl, mean.elbo, mean.loss, run.checkpoint.config.train.beta);
}

int run_evaluate(const EvaluateOptions& options) {
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    const RunData data = load_run_data(run.checkpoint, options.data, options.split);
    run.backend->set_data(data.splits);
    const LossTotals totals = run.backend->evaluate(data.split, run.checkpoint.config.train.beta);
    if (options.json) {
        print_json(options, run, data, totals);
    } else {
        print_text(run, data, totals);
    }
    return 0;
}

}  // namespace

void RunOptions::add_to(CLI::App& command) {
    command.add_option("RUN", run, "a run's folder, or a checkpoint file")
        ->required()
        ->type_name("");
    add_backend_option(command, "--backend", backend, "");
}

Command add_evaluate_command(CLI::App& program) {
    CLI::App* command =
        program.add_subcommand("evaluate", "recon, kl and elbo of a trained run over a split");
    const auto options = std::make_shared<EvaluateOptions>();
    options->run.add_to(*command);
    command->add_option("--data", options->data, "other data than the run's")->type_name("SPEC");
    command
        ->add_option("--split", options->split,
                     "train, validation or test; else validation where there is one, else test, "
                     "or all of a file or folder given by --data")
        ->type_name("NAME");
    command->add_flag("--json", options->json, "one JSON object instead of text");
    return {command, [options] { return run_evaluate(*options); }};
}

}  // namespace vae
