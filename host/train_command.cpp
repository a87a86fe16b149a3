#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "host/backend_choice.h"
#include "host/commands.h"
#include "host/config_options.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/image.h"
#include "host/loaded_run.h"
#include "host/pictures.h"
#include "host/run_folder.h"
#include "host/spelling.h"
#include "host/stop_signal.h"
#include "host/train.h"

namespace vae {

namespace {

constexpr std::size_t kSamples = 64;
constexpr std::size_t kSampleColumns = 8;
constexpr std::size_t kReconstructions = 32;
constexpr std::uint64_t kProfiledSteps = 385;

struct TrainOptions {
    explicit TrainOptions(CLI::App& command) : config(command) { config.add_length(); }

    ConfigOptions config;
    std::string backend = "auto";
    std::string out;
    bool resume = false;
    bool profile = false;
};

void write_samples(const RunFolder& folder, Backend& backend, const Config& config,
                   const ImageShape& shape) {
    const TrainingState state = backend.state();
    const PriorSampler prior(config.model, {config.model, shape.pixels()},
                             state.evaluated_parameters(), backend);
    std::vector<float> samples =
        prior_samples(backend, prior, config.model.latent, config.train.seed, kSamples);
    scale_for_picture(config.model.likelihood, {&samples});
    write_png_grid(folder.samples(), samples, shape, kSampleColumns);
}

void write_reconstructions(const RunFolder& folder, Backend& backend, const Config& config,
                           const Splits& splits) {
    const Split split = splits.held_out();
    const std::size_t count = std::min(kReconstructions, splits.of(split).size);
    Reconstructions pairs = reconstruct(backend, split, count);
    scale_for_picture(config.model.likelihood, {&pairs.originals, &pairs.decoded});
    write_reconstruction_grid(folder.reconstructions(), pairs, splits.train.shape);
}

// The configuration of a run, its data, and where it starts or goes on.
struct Plan {
    // Of a new run.
    explicit Plan(const Config& wanted)
        : config(wanted),
          splits(load_splits(config.data, config.model)),
          total(Schedule(config.train, splits.train.size).total_steps()) {
        check_held_out(config, splits);
        config.data.source = absolute_source(config.data.source);
        start = initial_checkpoint(config, splits);
    }

    // Of one that goes on.
    Plan(const Config& wanted, Checkpoint resumed)
        : config(wanted),
          splits(load_run_splits(config.data, resumed)),
          total(Schedule(config.train, splits.train.size).total_steps()),
          start(std::move(resumed)) {
        check_held_out(config, splits);
        config.data.source = absolute_source(config.data.source);
        check_resumable(start, config, splits);
        start.config = config;
    }

    Config config;
    Splits splits;
    std::uint64_t total;
    Checkpoint start;  // its state is given to the trainer
};

ChosenBackend backend_for(const Plan& plan, const TrainOptions& options, Progress& progress) {
    ChosenBackend chosen = choose_backend(options.backend, plan.config, plan.start.layout());
    chosen.backend->set_data(plan.splits);
    progress.line("backend: " + chosen.note);
    const std::string where = chosen.backend->data_note();
    if (!where.empty()) progress.line("data: " + where);
    return chosen;
}

void announce(const Plan& plan, const RunFolder& folder, Progress& progress) {
    const Config& config = plan.config;
    for (const auto& warning : data_warnings(plan.splits, config.data, config.model.likelihood)) {
        progress.line("warning: " + warning);
    }
    const Dataset& train = plan.splits.train;
    progress.line(fmt::format("{} of {} from {}; {}; run folder {}",
                              counted(train.size, "training example"), to_text(train.shape),
                              config.data.source, counted(plan.total, "step"),
                              folder.root.string()));
    progress.line("elbo, recon and kl are means in nats per example; " + kl_note(config));
    const std::string note = parameters_note(config.train);
    if (!note.empty()) progress.line("held-out examples and pictures are of " + note);
}

void train_to_the_end(Plan& plan, Backend& backend, const RunFolder& folder, const StopSignal& stop,
                      Progress& progress) {
    Trainer trainer(plan.config, plan.splits, backend, folder, progress);
    const TrainResult result =
        trainer.run(std::move(plan.start), [&stop] { return stop.was_raised(); });
    const std::string run = folder.root.string();
    if (result.was_stopped) {
        throw RunError(
            fmt::format("stopped by a signal after step {} of {}; all is saved; go on "
                        "with: vae train --resume --out {}",
                        result.step, plan.total, run));
    }
    if (is_drawable(plan.splits.train.shape)) {
        write_samples(folder, backend, plan.config, plan.splits.train.shape);
        write_reconstructions(folder, backend, plan.config, plan.splits);
    }
    std::string model = run;
    if (result.early_stopping.best_epoch > 0) {
        const Split split = plan.splits.held_out();
        model = folder.best().string();
        progress.line(result.stopped_early
                          ? stopped_text(result.early_stopping, split, folder.best())
                          : best_text(result.early_stopping, split, folder.best()));
    }
    progress.line(fmt::format("done: the run is in {}", run));
    progress.line(fmt::format("next: vae evaluate {}", model));
    progress.line(fmt::format("      vae sample {} --count 64 --out samples.{}", model,
                              is_drawable(plan.splits.train.shape) ? "png" : "npy"));
}

// Where the time of the run's steps goes, on steps that are then forgotten.
void show_profile(const Plan& plan, Backend& backend, Progress& progress) {
    const std::uint32_t batch = plan.config.train.batch;
    const std::uint64_t steps =
        std::min<std::uint64_t>(plan.splits.train.size / batch, kProfiledSteps);
    if (steps < kLeastProfiledSteps) {
        throw InputError(fmt::format(
            "--profile: {} examples are fewer than {} batches of train.batch = {}; use a smaller "
            "batch or leave --profile out",
            plan.splits.train.size, kLeastProfiledSteps, batch));
    }
    backend.set_state(plan.start.state);
    const std::uint64_t first = plan.start.state.step;
    const StepSchedule schedule = Schedule(plan.config.train, plan.splits.train.size).at(first);
    const StepProfile profile =
        backend.profile({.first_step = first,
                         .batch = batch,
                         .schedule = {schedule},
                         .part = {.count = static_cast<std::uint32_t>(steps * batch)}});
    (void)backend.take_totals();
    std::string text = to_text(profile);
    text.pop_back();  // the line's end is the progress's
    progress.line(text);
}

void start_run(const TrainOptions& options, Progress& progress) {
    check_new_run_folder(options.out);
    ConfigBuilder builder;
    options.config.apply(builder);
    Plan plan(builder.finish());
    const ChosenBackend chosen = backend_for(plan, options, progress);
    if (options.profile) show_profile(plan, *chosen.backend, progress);
    // Everything that can be wrong was found before this: what is made here is a run.
    const StopSignal stop;
    NewRunFolder made(options.out, plan.config.data.source);
    begin_run(made, plan.start, [&stop] { return stop.was_raised(); });
    announce(plan, made.folder(), progress);
    train_to_the_end(plan, *chosen.backend, made.folder(), stop, progress);
}

// A run that ended after its last checkpoint may have no pictures, or those of an earlier end.
void complete_pictures(const Plan& plan, const TrainOptions& options, const RunFolder& folder,
                       Progress& progress) {
    const auto is_stale = [&folder](const std::filesystem::path& picture) {
        std::error_code error;
        const auto written = std::filesystem::last_write_time(picture, error);
        return error || written < std::filesystem::last_write_time(folder.checkpoint());
    };
    const bool no_samples = is_stale(folder.samples());
    const bool no_reconstructions = is_stale(folder.reconstructions());
    const ImageShape& shape = plan.splits.train.shape;
    if (!is_drawable(shape) || !(no_samples || no_reconstructions)) return;
    const ChosenBackend chosen = backend_for(plan, options, progress);
    chosen.backend->set_state(plan.start.state);
    if (no_samples) write_samples(folder, *chosen.backend, plan.config, shape);
    if (no_reconstructions)
        write_reconstructions(folder, *chosen.backend, plan.config, plan.splits);
    progress.line("wrote the pictures that the run lacked");
}

bool is_over(const Plan& plan) {
    const Checkpoint& start = plan.start;
    return start.state.step >= plan.total ||
           start.early_stopping.is_over(plan.config.train.patience);
}

std::string nothing_left_text(const Plan& plan, const RunFolder& folder) {
    const std::string run = folder.root.string();
    const std::uint64_t step = plan.start.state.step;
    const std::uint64_t total = plan.total;
    if (step < total) {
        return fmt::format(
            "{}: nothing left to do: {}; a larger train.patience goes on", run,
            stopped_text(plan.start.early_stopping, plan.splits.held_out(), folder.best()));
    }
    if (step > total) {
        return fmt::format(
            "{}: nothing left to do: {} done, which is more than the {} asked for; --epochs or "
            "--steps asks for more",
            run, counted(step, "step"), total);
    }
    return fmt::format("{}: nothing left to do: {} of {} done; --epochs or --steps asks for more",
                       run, step, counted(total, "step"));
}

// Throws InputError when the best checkpoint is gone, which going on might not write again.
void check_best(const Plan& plan, const RunFolder& folder) {
    std::error_code error;
    const bool is_wanted =
        plan.config.train.patience > 0 && plan.start.early_stopping.best_epoch > 0;
    if (!is_wanted || std::filesystem::exists(folder.best(), error)) return;
    throw InputError(fmt::format(
        "{}: the checkpoint of the best epoch so far ({}) is not there; put it back, or go on "
        "without early stopping: --set train.patience=0",
        folder.best().string(), plan.start.early_stopping.best_epoch));
}

// Of a run that goes on, with its settings as they are from now on.
void record(const Checkpoint& start, const RunFolder& folder) {
    write_file_atomically(folder.config(), to_toml(start.config));
    save_checkpoint(folder.checkpoint(), start);
}

void resume_run(const TrainOptions& options, Progress& progress) {
    if (options.out.empty()) {
        throw InputError("--resume: say which run to go on with: --resume --out FOLDER");
    }
    const RunFolder folder{options.out};
    const std::filesystem::path checkpoint = find_checkpoint(options.out);
    if (checkpoint == folder.root) {
        throw InputError(fmt::format("--out {}: is a file; name the run's folder", options.out));
    }
    const RunLock lock(folder.root);
    remove_stale_temporaries(folder.root);
    Checkpoint resumed = load_checkpoint(checkpoint);
    const Config old = resumed.config;
    ConfigBuilder builder(resumed.config);
    options.config.apply(builder);
    Plan plan(builder.finish(), std::move(resumed));
    const std::uint64_t step = plan.start.state.step;
    const bool has_moved = plan.config.data.source != old.data.source;
    if (is_over(plan)) {
        if (has_moved) {
            plan.start.config = old;  // nothing but the place is taken over
            plan.start.config.data.source = plan.config.data.source;
            record(plan.start, folder);
        }
        complete_pictures(plan, options, folder, progress);
        progress.line(nothing_left_text(plan, folder));
        return;
    }
    check_best(plan, folder);
    const ChosenBackend chosen = backend_for(plan, options, progress);
    std::string kept;
    for (const std::string& line : metrics_lines_until(folder.metrics(), step)) kept += line + '\n';
    // Nothing is written before all that has to be read was read.
    const StopSignal stop;
    write_file_atomically(folder.metrics(), kept);
    record(plan.start, folder);
    announce(plan, folder, progress);
    if (has_moved) {
        progress.line(fmt::format("the data were at {}; they must be the same", old.data.source));
    }
    progress.line(fmt::format("going on after step {}", step));
    train_to_the_end(plan, *chosen.backend, folder, stop, progress);
}

int run_train(const TrainOptions& options) {
    // A reader of the output that ends must not end the run; the failed write is told after it.
    std::signal(SIGPIPE, SIG_IGN);
    Progress progress = Progress::standard();
    if (options.resume && options.profile) {
        throw InputError("--profile is for a new run; leave --resume or --profile out");
    }
    if (options.resume) {
        resume_run(options, progress);
    } else {
        start_run(options, progress);
    }
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
    command->add_flag("--profile", options->profile,
                      "print where the time of a step goes on the GPU, kernel by kernel, before a "
                      "new run starts");
    command->footer([] { return settings_help(); });
    return {command, [options] { return run_train(*options); }};
}

}  // namespace vae
