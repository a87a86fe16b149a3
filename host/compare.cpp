#include "host/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <span>

#include "host/config_file.h"
#include "host/error.h"
#include "host/safetensors.h"
#include "host/shuffle.h"
#include "host/train.h"

namespace vae {

namespace {

// The tensors of an arena, padding dropped.
Trace named_tensors(const std::string& prefix, const std::vector<double>& arena,
                    const ParameterLayout& layout) {
    Trace trace;
    for (const Tensor& tensor : layout.tensors()) {
        const auto begin = arena.begin() + static_cast<std::ptrdiff_t>(tensor.offset);
        trace.push_back(
            {prefix + tensor.name, tensor.shape,
             std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(tensor.size))});
    }
    return trace;
}

Trace trained_tensors(Backend& backend, const ParameterLayout& layout) {
    Trace trace = named_tensors("after.", backend.exact_parameters(), layout);
    const std::vector<double> ema = backend.exact_ema();
    if (ema.empty()) return trace;
    const Trace averages = named_tensors("after.ema.", ema, layout);
    trace.insert(trace.end(), averages.begin(), averages.end());
    return trace;
}

void train_steps(Backend& backend, const Checkpoint& start, std::uint64_t steps,
                 const StepsDone& on_steps) {
    const TrainConfig& train = start.config.train;
    const std::uint64_t examples = start.train_examples;
    const Schedule schedule(train, examples);
    const std::uint64_t per_epoch = schedule.steps_per_epoch();
    const std::uint64_t chunk = steps_in_chunk(backend, start.layout(), train.batch);
    for (std::uint64_t step = 0; step < steps;) {
        const std::uint64_t within = step % per_epoch;
        const std::uint64_t count = std::min({chunk, per_epoch - within, steps - step});
        const std::uint64_t begin = within * train.batch;
        backend.train(
            {.first_step = step,
             .batch = train.batch,
             .schedule = schedule.steps(step, count),
             .part = {
                 static_cast<std::uint32_t>(step / per_epoch), static_cast<std::uint32_t>(begin),
                 static_cast<std::uint32_t>(std::min(examples - begin, count * train.batch))}});
        const SkippedSteps skipped = backend.take_totals().skipped;
        if (skipped.count > 0) {
            throw RunError(fmt::format(
                "{}: {} is not finite in step {}; lower train.learning_rate ({}) or --steps",
                backend.name(), skipped.cause(), skipped.first_step + 1, train.learning_rate));
        }
        step += count;
        if (on_steps) on_steps(step);
    }
}

TensorComparison missing(const std::string& name) {
    return {.name = name, .gate = gate_of(name), .is_ok = false};
}

}  // namespace

BackendRecord record_steps(Backend& backend, const Checkpoint& start, std::uint64_t steps,
                           const StepsDone& on_steps) {
    const ParameterLayout layout = start.layout();
    const TrainConfig& train = start.config.train;
    const auto examples = static_cast<std::uint32_t>(start.train_examples);
    const std::vector<std::uint32_t> rows = shuffled_rows(train.seed, 0, examples);
    BackendRecord record;
    record.schedule = Schedule(train, examples).at(0);
    backend.set_state(start.state);
    record.before = named_tensors("", backend.exact_parameters(), layout);
    record.first_step = backend.trace(
        {.first_step = 0,
         .rows = std::span(rows).first(std::min<std::size_t>(rows.size(), train.batch)),
         .batch = train.batch,
         .schedule = {record.schedule}});
    train_steps(backend, start, steps, on_steps);
    record.after = trained_tensors(backend, layout);
    return record;
}

TensorComparison compare_tensor(const TracedTensor& value, const TracedTensor& reference,
                                double gate) {
    TensorComparison out;
    out.name = reference.name;
    out.gate = gate;
    if (value.shape != reference.shape || value.values.size() != reference.values.size()) {
        return out;
    }
    out.elements = reference.values.size();
    double error_squares = 0;
    double squares = 0;
    bool is_finite = true;
    for (std::size_t i = 0; i < out.elements; ++i) {
        const double error = std::abs(value.values[i] - reference.values[i]);
        is_finite = is_finite && std::isfinite(value.values[i]) && std::isfinite(error);
        out.largest_error = std::max(out.largest_error, error);
        error_squares += error * error;
        squares += reference.values[i] * reference.values[i];
    }
    out.relative_l2 = std::sqrt(squares > 0 ? error_squares / squares : error_squares);
    if (!is_finite) {
        out.relative_l2 = out.largest_error = std::nan("");
    }
    out.is_ok = out.elements > 0 && is_finite && out.relative_l2 <= gate;
    return out;
}

namespace {

std::vector<TensorComparison> compare_with(const Trace& values, const Trace& references,
                                           const std::function<double(const TracedTensor&)>& gate) {
    std::map<std::string, const TracedTensor*> by_name;
    for (const TracedTensor& value : values) by_name[value.name] = &value;
    std::vector<TensorComparison> out;
    for (const TracedTensor& reference : references) {
        const auto found = by_name.find(reference.name);
        if (found == by_name.end()) {
            out.push_back(missing(reference.name));
            continue;
        }
        out.push_back(compare_tensor(*found->second, reference, gate(reference)));
        by_name.erase(found);
    }
    for (const auto& [name, value] : by_name) out.push_back(missing(name));
    return out;
}

}  // namespace

std::vector<TensorComparison> compare_traces(const Trace& values, const Trace& references,
                                             KlTerm kl) {
    return compare_with(values, references, [kl](const TracedTensor& reference) {
        const bool is_estimate = kl == KlTerm::sampled && reference.name == "kl";
        return gate_of(is_estimate ? "log_ratio" : reference.name);
    });
}

Trace nudged_after(Backend& reference, const Checkpoint& start, std::uint64_t steps,
                   const StepsDone& on_steps) {
    Checkpoint nudged = start;
    float to = std::numeric_limits<float>::infinity();
    for (float& parameter : nudged.state.parameters) {
        if (parameter == 0) continue;  // padding, and biases that start at zero, stay
        parameter = std::nextafter(parameter, to);
        to = -to;
    }
    if (!nudged.state.ema.empty()) nudged.state.ema = nudged.state.parameters;  // it starts there
    reference.set_state(nudged.state);
    train_steps(reference, nudged, steps, on_steps);
    return trained_tensors(reference, start.layout());
}

std::vector<TensorComparison> compare_after(const Trace& values, const Trace& references,
                                            const Trace& nudged) {
    constexpr double kMargin = 10;  // one direction of rounding stands for all
    const auto gate_for = [&](const TracedTensor& reference) {
        const auto same = std::find_if(nudged.begin(), nudged.end(), [&](const auto& tensor) {
            return tensor.name == reference.name;
        });
        const double gate = gate_of(reference.name);
        if (same == nudged.end()) return gate;
        return std::max(gate, kMargin * compare_tensor(*same, reference, gate).relative_l2);
    };
    std::vector<TensorComparison> out = compare_with(values, references, gate_for);
    for (TensorComparison& one : out) {
        one.uncapped_gate = one.gate;
        one.gate = std::min(one.gate, kMostGate);
        one.is_ok = one.is_ok && one.relative_l2 <= one.gate;
    }
    return out;
}

double gate_of(const std::string& tensor) {
    const bool is_loss = tensor == "recon" || tensor == "kl" || tensor == "loss";
    return is_loss ? 1e-6 : 1e-5;
}

bool all_ok(const std::vector<TensorComparison>& comparisons) {
    return !comparisons.empty() && std::all_of(comparisons.begin(), comparisons.end(),
                                               [](const auto& one) { return one.is_ok; });
}

bool is_too_sensitive(const std::vector<TensorComparison>& comparisons) {
    return std::any_of(comparisons.begin(), comparisons.end(), [](const auto& one) {
        return one.relative_l2 > one.gate && one.relative_l2 <= one.uncapped_gate;
    });
}

void write_dump(const std::filesystem::path& path, const BackendRecord& record,
                const Config& config, std::uint64_t steps, const Backend& backend) {
    std::vector<SafeTensor> tensors;
    std::list<std::vector<float>> narrowed;  // a list, so that spans stay valid
    for (const Trace* trace : {&record.first_step, &record.before, &record.after}) {
        for (const TracedTensor& tensor : *trace) {
            SafeTensor out{tensor.name, tensor.shape, std::span<const double>(tensor.values)};
            if (!backend.is_double()) {
                narrowed.emplace_back(tensor.values.begin(), tensor.values.end());
                out.values = std::span<const float>(narrowed.back());
            }
            tensors.push_back(std::move(out));
        }
    }
    const std::size_t batch = record.first_step.empty() ? 0 : record.first_step[0].shape[0];
    write_safetensors(path, tensors,
                      {{"config", to_toml(config)},
                       {"beta", fmt::format("{}", record.schedule.beta)},
                       {"learning_rate", fmt::format("{}", record.schedule.learning_rate)},
                       {"steps", fmt::format("{}", steps)},
                       {"batch", fmt::format("{}", batch)},
                       {"backend", backend.name()}});
}

}  // namespace vae
