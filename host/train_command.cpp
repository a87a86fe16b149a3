#include <fmt/format.h>

#include <memory>

#include "host/backend_choice.h"
#include "host/commands.h"
#include "host/config_options.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/image.h"
#include "host/pictures.h"
#include "host/run_folder.h"
#include "host/stop_signal.h"
#include "host/train.h"

namespace vae {

namespace {

constexpr std::size_t kSamples = 64;
constexpr std::size_t kSampleColumns = 8;
constexpr std::size_t kReconstructions = 32;

struct TrainOptions {
    explicit TrainOptions(CLI::App& command) : config(command) { config.add_length(); }

    ConfigOptions config;
    std::string backend = "auto";
    std::string out;
    bool resume = false;
};

// Everything that can be wrong is found before this: what is made here is a run.
RunFolder start_run(const TrainOptions& options, const Checkpoint& start) {
    NewRunFolder made(options.out, start.config.data.source);
    write_file_atomically(made.folder().config(), to_toml(start.config));
    save_checkpoint(made.folder().checkpoint(), start);
    made.keep();
    return made.folder();
}

RunFolder continue_run(const TrainOptions& options, const Checkpoint& start) {
    const RunFolder folder{options.out};
    write_file_atomically(folder.config(), to_toml(start.config));
    std::string kept;
    for (const std::string& line : metrics_lines_until(folder.metrics(), start.state.step)) {
        kept += line + '\n';
    }
    write_file_atomically(folder.metrics(), kept);
    return folder;
}

void write_pictures(const RunFolder& folder, Backend& backend, const Config& config,
                    const Splits& splits) {
    const ImageShape& shape = splits.train.shape;
    if (!is_drawable(shape)) return;
    write_png_grid(folder.samples(),
                   prior_samples(backend, config.model.latent, config.train.seed, kSamples), shape,
                   kSampleColumns);
    const Split split = splits.held_out();
    const std::size_t count = std::min(kReconstructions, splits.of(split).size);
    write_reconstruction_grid(folder.reconstructions(), reconstruct(backend, split, count), shape);
}

// The configuration wanted, and where the run starts when it is a new one or a resumed one.
struct Plan {
    Config config;
    std::optional<Checkpoint> resumed;
};

Plan make_plan(const TrainOptions& options) {
    Plan plan;
    ConfigBuilder builder;
    if (options.resume) {
        if (options.out.empty()) {
            throw InputError("--resume: say which run to go on with: --resume --out FOLDER");
        }
        plan.resumed = load_checkpoint(find_checkpoint(options.out));
        builder = ConfigBuilder(plan.resumed->config);
    } else {
        check_new_run_folder(options.out);
    }
    options.config.apply(builder);
    plan.config = builder.finish();
    return plan;
}

void say_what_next(Progress& progress, const RunFolder& folder) {
    const std::string run = folder.root.string();
    progress.line(fmt::format("done: the run is in {}", run));
    progress.line(fmt::format("next: vae evaluate {}", run));
    progress.line(fmt::format("      vae sample {} --count 64 --out samples.png", run));
}

int run_train(const TrainOptions& options) {
    Progress progress = Progress::standard();
    const Plan plan = make_plan(options);
    const Config& config = plan.config;
    const Splits splits = load_splits(config.data, config.model.likelihood);
    const std::uint64_t total = total_steps(config.train, splits.train.size);
    if (plan.resumed) check_resumable(*plan.resumed, config, splits);
    Checkpoint start = plan.resumed ? *plan.resumed : initial_checkpoint(config, splits);
    start.config = config;
    if (plan.resumed && start.state.step >= total) {
        progress.line(
            fmt::format("{}: nothing left to do: {} of {} steps are done; "
                        "--epochs or --steps asks for more",
                        options.out, start.state.step, total));
        return 0;
    }
    const ChosenBackend chosen = choose_backend(options.backend, config, start.layout());
    chosen.backend->set_data(splits);
    progress.line("backend: " + chosen.note);
    for (const auto& warning : data_warnings(splits, config.data, config.model.likelihood)) {
        progress.line("warning: " + warning);
    }

    const RunFolder folder =
        plan.resumed ? continue_run(options, start) : start_run(options, start);
    progress.line(fmt::format("{} training examples of {} from {}; {} steps; run folder {}",
                              splits.train.size, to_text(splits.train.shape), config.data.source,
                              total, folder.root.string()));
    progress.line("elbo, recon and kl are means in nats per example");
    if (plan.resumed) progress.line(fmt::format("going on after step {}", start.state.step));
    const StopSignal stop;
    Trainer trainer(config, splits, *chosen.backend, folder, progress);
    const TrainResult result = trainer.run(start, [&] { return stop.was_raised(); });
    if (result.was_stopped) {
        throw RunError(
            fmt::format("stopped by a signal after step {} of {}; all is saved; go on "
                        "with: vae train --resume --out {}",
                        result.step, total, folder.root.string()));
    }
    write_pictures(folder, *chosen.backend, config, splits);
    say_what_next(progress, folder);
    return 0;
}

}  // namespace

Command add_train_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("train", "train a model and write a run folder");
    const auto options = std::make_shared<TrainOptions>(*command);
    command->add_option("--backend", options->backend, "auto, cuda or cpu")
        ->check(one_of({"auto", "cuda", "cpu"}))
        ->type_name("NAME");
    command
        ->add_option("--out", options->out,
                     "the run's folder; a fresh one under runs/ if not given")
        ->type_name("DIR");
    command->add_flag("--resume", options->resume, "go on with the run in --out, exactly");
    command->footer([] { return settings_help(); });
    return {command, [options] { return run_train(*options); }};
}

}  // namespace vae
