// sample, reconstruct, encode and decode: what a trained run is good for.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>

#include "host/commands.h"
#include "host/data_source.h"
#include "host/error.h"
#include "host/loaded_run.h"
#include "host/npy.h"
#include "host/pictures.h"

namespace vae {

namespace {

constexpr std::size_t kRowsAtOnce = 1024;  // bounds a backend's memory
constexpr std::size_t kMostSamples = std::size_t{1} << 24;

struct GenerateOptions {
    RunOptions run;
    std::size_t count = 64;
    std::optional<std::uint64_t> seed;
    std::string data;
    std::string latents;
    std::string logvar;
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
        ->check(CLI::Range(std::size_t{1}, kMostSamples).description(""))
        ->type_name("N");
}

void say_written(std::size_t count, const std::string& what, const std::string& file) {
    fmt::print("wrote {} {} to {}\n", count, what, file);
}

int run_sample(const GenerateOptions& options) {
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    const Config& config = run.checkpoint.config;
    output_kind(options.out, run.checkpoint.shape);
    write_images(options.out,
                 prior_samples(*run.backend, config.model.latent,
                               options.seed.value_or(config.train.seed), options.count),
                 run.checkpoint.shape);
    say_written(options.count, "samples", options.out);
    return 0;
}

int run_reconstruct(const GenerateOptions& options) {
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    const Checkpoint& checkpoint = run.checkpoint;
    const OutputKind kind = output_kind(options.out, checkpoint.shape);
    DataConfig data = checkpoint.config.data;
    if (!options.data.empty()) data.source = options.data;
    const Splits splits = load_splits(data, checkpoint.config.model.likelihood);
    const Split split = splits.held_out();
    check_fits(splits.of(split), data.source, checkpoint);
    run.backend->set_data(splits);
    const std::size_t count = std::min(options.count, splits.of(split).size);
    const Reconstructions pairs = reconstruct(*run.backend, split, count);
    if (kind == OutputKind::png) {
        write_reconstruction_grid(options.out, pairs, checkpoint.shape);
    } else {
        write_images(options.out, pairs.means, checkpoint.shape);
    }
    say_written(count, fmt::format("reconstructions of {} examples", name_of(split)), options.out);
    return 0;
}

// The posterior of every example, in order.
Posterior encode_all(Backend& backend, std::size_t count) {
    Posterior all;
    for (std::size_t begin = 0; begin < count; begin += kRowsAtOnce) {
        std::vector<std::uint32_t> rows(std::min(kRowsAtOnce, count - begin));
        std::iota(rows.begin(), rows.end(), static_cast<std::uint32_t>(begin));
        const Posterior some = backend.encode(backend.examples(Split::test, rows));
        all.mu.insert(all.mu.end(), some.mu.begin(), some.mu.end());
        all.logvar.insert(all.logvar.end(), some.logvar.begin(), some.logvar.end());
    }
    return all;
}

void check_npy(const std::string& option, const std::string& file) {
    if (std::filesystem::path(file).extension() == ".npy") return;
    throw InputError(fmt::format("{} {}: must end in .npy", option, file));
}

int run_encode(const GenerateOptions& options) {
    check_npy("--out", options.out);
    if (!options.logvar.empty()) check_npy("--logvar", options.logvar);
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    const Checkpoint& checkpoint = run.checkpoint;
    Splits splits;
    splits.test = load_examples(options.data);
    check_fits(splits.test, options.data, checkpoint);
    check_support(splits.test, checkpoint.config.model.likelihood, options.data);
    splits.train.shape = splits.validation.shape = splits.test.shape;
    run.backend->set_data(splits);
    const std::size_t count = splits.test.size;
    const Posterior posterior = encode_all(*run.backend, count);
    const std::size_t shape[] = {count, checkpoint.config.model.latent};
    write_npy(options.out, posterior.mu, shape);
    if (!options.logvar.empty()) write_npy(options.logvar, posterior.logvar, shape);
    say_written(count, "posterior means", options.out);
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
    const LoadedRun run = load_run(options.run.run, options.run.backend);
    const std::size_t latent = run.checkpoint.config.model.latent;
    output_kind(options.out, run.checkpoint.shape);
    const std::vector<float> z = read_latents(options.latents, latent);
    std::vector<float> images;
    for (std::size_t begin = 0; begin < z.size(); begin += kRowsAtOnce * latent) {
        const std::size_t size = std::min(kRowsAtOnce * latent, z.size() - begin);
        const std::vector<float> some = run.backend->decode(std::span(z).subspan(begin, size));
        images.insert(images.end(), some.begin(), some.end());
    }
    write_images(options.out, images, run.checkpoint.shape);
    say_written(z.size() / latent, "decoded examples", options.out);
    return 0;
}

}  // namespace

Command add_sample_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("sample", "draw new examples from the prior");
    const auto options = add_common(*command, "a picture (.png) or an array (.npy)");
    add_count(*command, *options, "how many; the first ones do not depend on it")
        ->capture_default_str();
    command->add_option("--seed", options->seed, "of the latent codes; the run's if not given")
        ->type_name("N");
    return {command, [options] { return run_sample(*options); }};
}

Command add_reconstruct_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand(
        "reconstruct", "encode and decode held-out examples: originals above reconstructions");
    const auto options = add_common(*command, "a picture (.png), or the reconstructions (.npy)");
    add_count(*command, *options, "how many of the first examples")->capture_default_str();
    command->add_option("--data", options->data, "other data than the run's")->type_name("SPEC");
    return {command, [options] { return run_reconstruct(*options); }};
}

Command add_encode_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("encode", "posterior means of examples, [N, Z]");
    const auto options = add_common(*command, "an array (.npy)");
    command->add_option("--data", options->data, "the examples")->required()->type_name("SPEC");
    command->add_option("--logvar", options->logvar, "also the posterior log-variances (.npy)")
        ->type_name("FILE");
    return {command, [options] { return run_encode(*options); }};
}

Command add_decode_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand("decode", "examples from latent codes");
    const auto options = add_common(*command, "a picture (.png) or an array (.npy)");
    command->add_option("--latents", options->latents, "the codes, float32 [N, Z] (.npy)")
        ->required()
        ->type_name("FILE");
    return {command, [options] { return run_decode(*options); }};
}

}  // namespace vae
