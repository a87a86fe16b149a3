#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "host/backend_choice.h"
#include "host/commands.h"
#include "host/compare.h"
#include "host/config_options.h"
#include "host/cuda_environment.h"
#include "host/data_source.h"
#include "host/loaded_run.h"
#include "host/progress.h"
#include "host/spelling.h"
#include "host/train.h"

namespace vae {

namespace {

constexpr std::uint64_t kMostSteps = 1'000'000;

struct CompareOptions {
    explicit CompareOptions(CLI::App& command) : config(command) {}

    ConfigOptions config;
    std::string backend = "auto";
    std::string against = "cpu-double";
    std::uint64_t steps = 20;
    std::string dump;
    bool json = false;
};

struct Records {
    BackendRecord values;
    BackendRecord references;
    Trace nudged;
};

// Shows on standard error how far it is.
Records train_all(Backend& value, Backend& reference, const Splits& splits, const Checkpoint& start,
                  std::uint64_t steps, Precision precision) {
    Progress progress = Progress::standard_error();
    const auto shown = [&](const std::string& what) {
        return ShownWork(progress, what, steps, "steps");
    };
    Records out;
    value.set_data(splits);
    reference.set_data(splits);
    out.values = record_steps(value, start, steps, shown("1/3: " + value.name()));
    out.references = record_steps(reference, start, steps, shown("2/3: " + reference.name()));
    out.nudged = nudged_after(reference, start, steps,
                              shown("3/3: " + reference.name() + ", rounded"), precision);
    return out;
}

void print_table(const std::vector<TensorComparison>& rows) {
    std::size_t width = 6;
    for (const auto& row : rows) width = std::max(width, row.name.size());
    fmt::print("{:<{}}  {:>10}  {:>11}  {:>13}  {:>8}\n", "tensor", width, "elements",
               "relative L2", "largest error", "gate");
    for (const auto& row : rows) {
        fmt::print("{:<{}}  {:>10}  {:>11.2e}  {:>13.2e}  {:>8.2e}  {}\n", row.name, width,
                   row.elements, row.relative_l2, row.largest_error, row.gate,
                   row.is_ok ? "ok" : "FAIL");
    }
}

void print_json(const ChosenBackend& value, const ChosenBackend& reference, std::uint64_t steps,
                const std::vector<TensorComparison>& rows) {
    nlohmann::ordered_json out;
    out["backend"] = value.backend->name();
    out["against"] = reference.backend->name();
    out["precision"] = name_of(value.backend->precision());
    if (!value.backend->plan().empty()) out["plan"] = value.backend->plan();
    out["steps"] = steps;
    out["ok"] = all_ok(rows);
    out["too_sensitive"] = is_too_sensitive(rows);
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

// The end of the report: what was counted, and why gates are as they are.
void print_summary(const std::vector<TensorComparison>& rows, std::uint64_t steps,
                   Precision precision) {
    const auto count = [&rows](const auto& is_meant) {
        return static_cast<std::uint64_t>(std::count_if(rows.begin(), rows.end(), is_meant));
    };
    fmt::print("{}, {} outside their gates; after.* is after {}\n", counted(rows.size(), "tensor"),
               count([](const auto& row) { return !row.is_ok; }), counted(steps, "step"));
    const auto raised = count([precision](const auto& row) {
        return row.name.starts_with("after.") && row.gate > gate_of(row.name, precision);
    });
    if (raised > 0) {
        fmt::print(
            "{} of after.* raised to ten times what one rounding of each initial parameter does to "
            "the reference, at most {:.0e}\n",
            counted(raised, "gate"), most_gate(precision));
    }
    if (is_too_sensitive(rows)) {
        fmt::print(
            "this network is too sensitive to rounding to be compared after {}; ask for fewer by "
            "--steps\n",
            counted(steps, "step"));
    }
}

int run_compare(const CompareOptions& options) {
    ConfigBuilder builder;
    options.config.apply(builder);
    Config config = builder.finish();
    if (!options.config.names("train.precision")) config.train.precision = Precision::fp32;
    if (!options.dump.empty()) {
        std::vector<std::filesystem::path> inputs = paths_read(config.data.source);
        if (!options.config.file().empty()) inputs.emplace_back(options.config.file());
        check_output("--dump", options.dump, inputs);
    }
    const Splits splits = load_splits(config.data, config.model);
    const Checkpoint start = initial_checkpoint(config, splits);
    const ChosenBackend value = choose_backend(options.backend, config, start.layout());
    const ChosenBackend reference = choose_backend(
        options.against, config_for(options.against, config), start.layout(), "--against");
    if (!options.json) fmt::print("backend: {}\nagainst: {}\n", value.note, reference.note);
    if (value.backend->name() == "cuda" || reference.backend->name() == "cuda") {
        warn_of_cuda_environment();
    }

    const Precision precision = value.backend->precision();
    const Records records =
        train_all(*value.backend, *reference.backend, splits, start, options.steps, precision);
    if (!options.dump.empty()) {
        write_dump(options.dump, records.values, config, options.steps, *value.backend);
    }
    std::vector<TensorComparison> rows =
        compare_traces(records.values.first_step, records.references.first_step,
                       effective_objective(config).kl, precision);
    const auto after =
        compare_after(records.values.after, records.references.after, records.nudged, precision);
    rows.insert(rows.end(), after.begin(), after.end());
    if (options.json) {
        print_json(value, reference, options.steps, rows);
    } else {
        print_table(rows);
        print_summary(rows, options.steps, precision);
    }
    return all_ok(rows) ? 0 : 1;
}

}  // namespace

Command add_compare_command(CLI::App& program) {
    CLI::App* command = program.add_subcommand(
        "compare", "the same parameters, batch and noise through two backends");
    const auto options = std::make_shared<CompareOptions>(*command);
    add_backend_option(*command, "--backend", options->backend, "");
    add_backend_option(*command, "--against", options->against, "the reference: ");
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
