// sample, reconstruct, encode and decode: what a trained run is good for.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "host/commands.h"
#include "host/config_options.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/files.h"
#include "host/likelihood_sample.h"
#include "host/loaded_run.h"
#include "host/npy.h"
#include "host/pictures.h"
#include "host/progress.h"
#include "host/row_blocks.h"
#include "host/run_folder.h"
#include "host/spelling.h"

namespace vae {

namespace {

constexpr std::size_t kMostSamples = 1'000'000;

struct GenerateOptions {
    RunOptions run;
    std::size_t count = 64;
    std::optional<std::uint64_t> seed;
    std::string draw = "mean";
    std::string data;
    std::string latents;
    std::string logvar;
    std::string tril;
    std::string out;
};

std::shared_ptr<GenerateOptions> add_common(CLI::App& command, const std::string& out_help) {
    auto options = std::make_shared<GenerateOptions>();
    options->run.add_to(command);
    command.add_option("--out", options->out, out_help)->required()->type_name("FILE");
    return options;
}

CLI::Option* add_count(CLI::App& command, GenerateOptions& options, const std::string& help) {
    return command.add_option("--count", options.count, help)
        ->check(whole_number(1, kMostSamples))
        ->type_name("N");
}

// --draw and the seed of what is drawn.
void add_draw(CLI::App& command, GenerateOptions& options, const std::string& seed_of) {
    command
        .add_option("--draw", options.draw, "the mean of p(x|z), or a sample of it: mean, sample")
        ->check(one_of({"mean", "sample"}))
        ->capture_default_str()
        ->type_name("KIND");
    command.add_option("--seed", options.seed, "of " + seed_of + "; the run's if not given")
        ->check(whole_number(0, std::numeric_limits<std::uint64_t>::max()))
        ->type_name("N");
}

LoadedRun load_and_announce(const RunOptions& options) {
    LoadedRun run = load_run(options.run, options.backend);
    fmt::print("backend: {}\n", run.note);
    const std::string note = parameters_note(run.checkpoint.config.train);
    if (!note.empty()) fmt::print("parameters: {}\n", note);
    return run;
}

// Throws unless `file` can be written without loss of what this command reads.
void check_output_of(const GenerateOptions& options, const std::string& option,
                     const std::string& file, const std::string& data = "") {
    std::vector<std::filesystem::path> inputs = paths_read(data);
    inputs.push_back(find_checkpoint(options.run.run));
    if (!options.latents.empty()) inputs.emplace_back(options.latents);
    check_output(option, file, inputs);
}

// `what` is counted: "3 samples".
void say_written(const std::string& what, const std::string& file) {
    fmt::print("wrote {} to {}\n", what, file);
}

// What `work` returns, which tells the RowsDone that it is given how far it is: standard error
// shows it, and nothing is shown after it.
template <class Work>
auto shown(const std::string& what, std::size_t count, const Work& work) {
    Progress progress = Progress::standard_error();
    return work(ShownWork(progress, what, count, "examples"));
}

// What --draw asks for; nothing: means.
std::optional<LikelihoodSampler> sampler_of(const GenerateOptions& options, const LoadedRun& run) {
    if (options.draw == "mean") return std::nullopt;
    const Checkpoint& checkpoint = run.checkpoint;
    return LikelihoodSampler(checkpoint.config.model, checkpoint.layout(),
                             checkpoint.state.evaluated_parameters(),
                             options.seed.value_or(checkpoint.config.train.seed));
}

const LikelihoodSampler* pointer_to(const std::optional<LikelihoodSampler>& sampler) {
    return sampler ? &*sampler : nullptr;
}

// Writes pictures, or the values themselves.
void write_examples(const GenerateOptions& options, const LoadedRun& run,
                    std::vector<float> examples) {
    const Checkpoint& checkpoint = run.checkpoint;
    if (output_kind(options.out, checkpoint.shape) == OutputKind::png) {
        scale_for_picture(checkpoint.config.model.likelihood, {&examples});
    }
    write_images(options.out, examples, checkpoint.shape);
}

int run_sample(const GenerateOptions& options) {
    const LoadedRun run = load_and_announce(options.run);
    const Config& config = run.checkpoint.config;
    check_images(options.out, run.checkpoint.shape, options.count);
    check_output_of(options, "--out", options.out);
    try {
        const std::uint64_t seed = options.seed.value_or(config.train.seed);
        const auto sampler = sampler_of(options, run);
        const PriorSampler prior(config.model, run.checkpoint.layout(),
                                 run.checkpoint.state.evaluated_parameters(), *run.backend);
        auto samples = shown("sampling", options.count, [&](const RowsDone& on_rows) {
            return prior_samples(*run.backend, prior, config.model.latent, seed, options.count,
                                 pointer_to(sampler), on_rows);
        });
        write_examples(options, run, std::move(samples));
    } catch (const std::bad_alloc&) {
        throw RunError(fmt::format(
            "--count {}: too many samples for the memory there is; ask for fewer", options.count));
    }
    say_written(counted(options.count, "sample"), options.out);
    return 0;
}

int run_reconstruct(const GenerateOptions& options) {
    const LoadedRun run = load_and_announce(options.run);
    const Checkpoint& checkpoint = run.checkpoint;
    const OutputKind kind = output_kind(options.out, checkpoint.shape);
    check_output_of(options, "--out", options.out,
                    options.data.empty() ? checkpoint.config.data.source : options.data);
    const RunData data = load_run_data(checkpoint, options.data);
    run.backend->set_data(data.splits);
    const std::size_t count = std::min(options.count, data.examples().size);
    if (kind == OutputKind::png) check_reconstruction_grid(checkpoint.shape, count);
    const auto sampler = sampler_of(options, run);
    Reconstructions pairs = reconstruct(*run.backend, data.split, count, pointer_to(sampler));
    if (kind == OutputKind::png) {
        scale_for_picture(checkpoint.config.model.likelihood, {&pairs.originals, &pairs.decoded});
        write_reconstruction_grid(options.out, pairs, checkpoint.shape);
    } else {
        write_images(options.out, pairs.decoded, checkpoint.shape);
    }
    const std::string examples =
        data.is_all ? "examples of " + data.source : data.split_name() + " examples";
    say_written(counted(count, "reconstruction") + " of " + examples, options.out);
    return 0;
}

// The files of encode by their options; --out comes first.
std::vector<std::pair<std::string, std::string>> encode_outputs(const GenerateOptions& options) {
    std::vector<std::pair<std::string, std::string>> outputs = {{"--out", options.out}};
    if (!options.logvar.empty()) outputs.emplace_back("--logvar", options.logvar);
    if (!options.tril.empty()) outputs.emplace_back("--tril", options.tril);
    return outputs;
}

void check_encode_outputs(const GenerateOptions& options) {
    const auto outputs = encode_outputs(options);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        check_npy(outputs[i].first, outputs[i].second);
        for (std::size_t j = 0; j < i; ++j) {
            if (!same_file(outputs[j].second, outputs[i].second)) continue;
            throw InputError(fmt::format("{} {}: it is the same file as {} {}; choose another",
                                         outputs[i].first, outputs[i].second, outputs[j].first,
                                         outputs[j].second));
        }
    }
}

// What of a covariance can be written.
void check_covariance_outputs(const GenerateOptions& options, const LoadedRun& run) {
    const bool is_full = run.checkpoint.layout().heads.is_full();
    if (!is_full && !options.tril.empty()) {
        throw InputError(
            fmt::format("--tril {}: the posterior of {} has a diagonal covariance; use --logvar, "
                        "or leave it out",
                        options.tril, options.run.run));
    }
    if (is_full && !options.logvar.empty() && options.tril.empty()) {
        throw InputError(
            fmt::format("--logvar {}: the posterior of {} has a full covariance, which "
                        "log-variances alone do not give; add --tril FILE.npy",
                        options.logvar, options.run.run));
    }
}

int run_encode(const GenerateOptions& options) {
    check_encode_outputs(options);
    const LoadedRun run = load_and_announce(options.run);
    check_covariance_outputs(options, run);
    for (const auto& [option, file] : encode_outputs(options)) {
        check_output_of(options, option, file, options.data);
    }
    const RunData data = load_run_examples(run.checkpoint, options.data);
    run.backend->set_data(data.splits);
    const std::size_t count = data.examples().size;
    const Posterior posterior = shown("encoding", count, [&](const RowsDone& on_rows) {
        return encode_examples(*run.backend, data.split, count, on_rows);
    });
    const std::size_t shape[] = {count, run.checkpoint.config.model.latent};
    write_npy(options.out, posterior.mu, shape);
    if (!options.logvar.empty()) write_npy(options.logvar, posterior.logvar, shape);
    if (!options.tril.empty()) {
        const std::size_t below[] = {count, posterior.tril.size() / count};
        write_npy(options.tril, posterior.tril, below);
    }
    say_written(counted(count, "posterior mean"), options.out);
    return 0;
}

std::vector<float> read_latents(const std::string& file, std::size_t latent) {
    const NpyArray array = read_npy(file);
    const auto* values = std::get_if<std::vector<float>>(&array.values);
    if (values == nullptr || array.shape.size() != 2 || array.shape[1] != latent ||
        array.shape[0] == 0) {
        throw InputError(fmt::format(
            "--latents {}: is {} of {}, but the run wants float32 of "
            "[N, {}]",
            file, to_text(array.shape), values == nullptr ? "uint8" : "float32", latent));
    }
    const auto bad = std::find_if_not(values->begin(), values->end(),
                                      [](float value) { return std::isfinite(value); });
    if (bad != values->end()) {
        const auto index = static_cast<std::size_t>(bad - values->begin());
        throw InputError(fmt::format("--latents {}: the value at [{}, {}] is not finite", file,
                                     index / latent, index % latent));
    }
    return *values;
}

int run_decode(const GenerateOptions& options) {
    const LoadedRun run = load_and_announce(options.run);
    const std::size_t latent = run.checkpoint.config.model.latent;
    output_kind(options.out, run.checkpoint.shape);
    check_output_of(options, "--out", options.out);
    const std::vector<float> z = read_latents(options.latents, latent);
    check_images(options.out, run.checkpoint.shape, z.size() / latent);
    const std::size_t count = z.size() / latent;
    const auto sampler = sampler_of(options, run);
    auto examples = shown("decoding", count, [&](const RowsDone& on_rows) {
        return decode_codes(*run.backend, z, latent, pointer_to(sampler), on_rows);
    });
    const auto bad = std::find_if_not(examples.begin(), examples.end(),
                                      [](float value) { return std::isfinite(value); });
    if (bad != examples.end()) {
        const std::size_t row =
            static_cast<std::size_t>(bad - examples.begin()) / run.checkpoint.shape.pixels();
        throw RunError(fmt::format(
            "--latents {}: what row {} decodes to is not finite: its values are too large",
            options.latents, row));
    }
    write_examples(options, run, std::move(examples));
    say_written(counted(count, "decoded example"), options.out);
    return 0;
}

}  // namespace

Command add_sample_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("sample", "draw new examples from the prior");
    const auto options = add_common(*command, "a picture (.png) or an array (.npy)");
    add_count(*command, *options, "how many; the first ones do not depend on it")
        ->capture_default_str();
    add_draw(*command, *options, "the latent codes and of --draw sample");
    return {command, [options] { return run_sample(*options); }};
}

Command add_reconstruct_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand(
        "reconstruct", "encode and decode held-out examples: originals above reconstructions");
    const auto options = add_common(*command, "a picture (.png), or the reconstructions (.npy)");
    add_count(*command, *options, "how many of the first examples")->capture_default_str();
    command->add_option("--data", options->data, "other data than the run's")->type_name("SPEC");
    add_draw(*command, *options, "--draw sample");
    return {command, [options] { return run_reconstruct(*options); }};
}

Command add_encode_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("encode", "posterior means of examples, [N, Z]");
    const auto options = add_common(*command, "an array (.npy)");
    command->add_option("--data", options->data, "the examples")->required()->type_name("SPEC");
    command->add_option("--logvar", options->logvar, "also the posterior log-variances (.npy)")
        ->type_name("FILE");
    command
        ->add_option("--tril", options->tril,
                     "of a full covariance, also what its Cholesky factor has below its diagonal, "
                     "row by row (.npy)")
        ->type_name("FILE");
    return {command, [options] { return run_encode(*options); }};
}

Command add_decode_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("decode", "examples from latent codes");
    const auto options = add_common(*command, "a picture (.png) or an array (.npy)");
    command->add_option("--latents", options->latents, "the codes, float32 [N, Z] (.npy)")
        ->required()
        ->type_name("FILE");
    add_draw(*command, *options, "--draw sample");
    return {command, [options] { return run_decode(*options); }};
}

}  // namespace vae
