#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "host/backend_choice.h"
#include "host/commands.h"
#include "host/compare.h"
#include "host/config_options.h"
#include "host/cuda_module.h"
#include "host/data_source.h"
#include "host/train.h"

namespace vae {

namespace {

constexpr std::uint64_t kMostSteps = 1'000'000;

struct CompareOptions {
    explicit CompareOptions(CLI::App& command) : config(command) {}

    ConfigOptions config;
    std::string backend;
    std::string against = "cpu-double";
    std::uint64_t steps = 20;
    std::string dump;
    bool json = false;
};

BackendRecord record_of(const ChosenBackend& chosen, const Splits& splits, const Checkpoint& start,
                        std::uint64_t steps) {
    chosen.backend->set_data(splits);
    return record_steps(*chosen.backend, start, steps);
}

void print_table(const std::vector<TensorComparison>& rows) {
    std::size_t width = 6;
    for (const auto& row : rows) width = std::max(width, row.name.size());
    fmt::print("{:<{}}  {:>10}  {:>11}  {:>13}  {:>7}\n", "tensor", width, "elements",
               "relative L2", "largest error", "gate");
    for (const auto& row : rows) {
        fmt::print("{:<{}}  {:>10}  {:>11.2e}  {:>13.2e}  {:>7.0e}  {}\n", row.name, width,
                   row.elements, row.relative_l2, row.largest_error, row.gate,
                   row.is_ok ? "ok" : "FAIL");
    }
}

void print_json(const ChosenBackend& value, const ChosenBackend& reference, std::uint64_t steps,
                const std::vector<TensorComparison>& rows) {
    nlohmann::ordered_json out;
    out["backend"] = value.backend->name();
    out["against"] = reference.backend->name();
    out["steps"] = steps;
    out["ok"] = all_ok(rows);
    out["tensors"] = nlohmann::ordered_json::array();
    for (const auto& row : rows) {
        nlohmann::ordered_json tensor;
        tensor["name"] = row.name;
        tensor["elements"] = row.elements;
        tensor["relative_l2"] = row.relative_l2;
        tensor["largest_error"] = row.largest_error;
        tensor["gate"] = row.gate;
        tensor["ok"] = row.is_ok;
        out["tensors"].push_back(tensor);
    }
    fmt::print("{}\n", out.dump());
}

int run_compare(const CompareOptions& options) {
    ConfigBuilder builder;
    options.config.apply(builder);
    const Config config = builder.finish();
    const Splits splits = load_splits(config.data, config.model.likelihood);
    const Checkpoint start = initial_checkpoint(config, splits);
    const std::string first = options.backend.empty() ? "auto" : options.backend;
    const ChosenBackend value = choose_backend(first, config, start.layout());
    const ChosenBackend reference = choose_backend(options.against, config, start.layout());
    if (!options.json) fmt::print("backend: {}\nagainst: {}\n", value.note, reference.note);

    const BackendRecord values = record_of(value, splits, start, options.steps);
    const BackendRecord references = record_of(reference, splits, start, options.steps);
    if (!options.dump.empty()) {
        write_dump(options.dump, values, config, options.steps, *value.backend);
    }
    std::vector<TensorComparison> rows = compare_traces(values.first_step, references.first_step);
    const auto after = compare_after(values.after, references.after,
                                     nudged_after(*reference.backend, start, options.steps));
    rows.insert(rows.end(), after.begin(), after.end());
    if (options.json) {
        print_json(value, reference, options.steps, rows);
        return all_ok(rows) ? 0 : 1;
    }
    print_table(rows);
    const auto misses = std::count_if(rows.begin(), rows.end(), [](auto& r) { return !r.is_ok; });
    fmt::print("{} tensors, {} outside their gates; after.* is after {} {}\n", rows.size(), misses,
               options.steps, options.steps == 1 ? "step" : "steps");
    const auto raised =
        std::count_if(after.begin(), after.end(), [](auto& r) { return r.gate > gate_of(r.name); });
    if (raised > 0) {
        fmt::print(
            "{} gates of after.* are ten times what one rounding of each initial parameter "
            "does to the reference\n",
            raised);
    }
    return all_ok(rows) ? 0 : 1;
}

}  // namespace

Command add_compare_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand(
        "compare", "the same parameters, batch and noise through two backends");
    const auto options = std::make_shared<CompareOptions>(*command);
    const CLI::Validator backends = one_of({"cuda", "cpu", "cpu-double"});
    command->add_option("--backend", options->backend, "cuda, cpu or cpu-double; else cuda or cpu")
        ->check(backends)
        ->type_name("NAME");
    command->add_option("--against", options->against, "the reference: cuda, cpu or cpu-double")
        ->check(backends)
        ->capture_default_str()
        ->type_name("NAME");
    command->add_option("--steps", options->steps, "steps before parameters are compared")
        ->check(whole_number(1, kMostSteps))
        ->capture_default_str()
        ->type_name("N");
    command->add_option("--dump", options->dump, "--backend's first step as safetensors")
        ->type_name("FILE");
    command->add_flag("--json", options->json, "one JSON object instead of a table");
    return {command, [options] { return run_compare(*options); }};
}

}  // namespace vae
