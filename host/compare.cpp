#include "host/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
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

// Bits of the mantissa, without the one that is not stored.
int mantissa_bits(Precision precision) {
    switch (precision) {
        case Precision::tf32:
            return 10;
        case Precision::bf16:
            return 7;
        case Precision::automatic:
        case Precision::fp32:
            break;
    }
    return 23;
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
         .rows = std::span(rows).first(std::min<std::size_t>(rows.size(), train.part_rows())),
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

// `gate` of a tensor's name.
std::vector<TensorComparison> compare_with(const Trace& values, const Trace& references,
                                           const std::function<double(const std::string&)>& gate) {
    const auto missing = [&gate](const std::string& name) {
        return TensorComparison{.name = name, .gate = gate(name), .is_ok = false};
    };
    std::map<std::string, const TracedTensor*> by_name;
    for (const TracedTensor& value : values) by_name[value.name] = &value;
    std::vector<TensorComparison> out;
    for (const TracedTensor& reference : references) {
        const auto found = by_name.find(reference.name);
        if (found == by_name.end()) {
            out.push_back(missing(reference.name));
            continue;
        }
        out.push_back(compare_tensor(*found->second, reference, gate(reference.name)));
        by_name.erase(found);
    }
    for (const auto& [name, value] : by_name) out.push_back(missing(name));
    return out;
}

}  // namespace

std::vector<TensorComparison> compare_traces(const Trace& values, const Trace& references,
                                             KlTerm kl, Precision precision) {
    return compare_with(values, references, [kl, precision](const std::string& tensor) {
        const bool is_estimate = kl == KlTerm::sampled && tensor == "kl";
        return gate_of(is_estimate ? "log_ratio" : tensor, precision);
    });
}

Trace nudged_after(Backend& reference, const Checkpoint& start, std::uint64_t steps,
                   const StepsDone& on_steps, Precision precision) {
    Checkpoint nudged = start;
    float sign = 1;
    for (float& parameter : nudged.state.parameters) {
        if (parameter == 0) continue;  // padding, and biases that start at zero, stay
        parameter += std::ldexp(sign, std::ilogb(parameter) - mantissa_bits(precision));
        sign = -sign;
    }
    if (!nudged.state.ema.empty()) nudged.state.ema = nudged.state.parameters;  // it starts there
    reference.set_state(nudged.state);
    train_steps(reference, nudged, steps, on_steps);
    return trained_tensors(reference, start.layout());
}

std::vector<TensorComparison> compare_after(const Trace& values, const Trace& references,
                                            const Trace& nudged, Precision precision) {
    constexpr double kMargin = 10;  // one direction of rounding stands for all
    std::map<std::string, const TracedTensor*> nudged_by_name;
    for (const TracedTensor& tensor : nudged) nudged_by_name[tensor.name] = &tensor;
    std::map<std::string, double> gates;
    for (const TracedTensor& reference : references) {
        const double gate = gate_of(reference.name, precision);
        const auto same = nudged_by_name.find(reference.name);
        gates[reference.name] =
            same == nudged_by_name.end()
                ? gate
                : std::max(gate,
                           kMargin * compare_tensor(*same->second, reference, gate).relative_l2);
    }
    std::vector<TensorComparison> out =
        compare_with(values, references, [&](const std::string& tensor) {
            const auto found = gates.find(tensor);
            return found == gates.end() ? gate_of(tensor, precision) : found->second;
        });
    for (TensorComparison& one : out) {
        one.uncapped_gate = one.gate;
        one.gate = std::min(one.gate, most_gate(precision));
        one.is_ok = one.is_ok && one.relative_l2 <= one.gate;
    }
    return out;
}

double most_gate(Precision precision) {
    switch (precision) {
        case Precision::tf32:
            return 1e-1;
        case Precision::bf16:
            return 3e-1;
        case Precision::automatic:
        case Precision::fp32:
            break;
    }
    return 1e-2;
}

// What is no result of a product is in FP32 whatever the precision. Of the losses, whose terms'
// errors average out, recon and loss do so under TF32 and BF16 too, and recon, of single examples,
// ten times less; kl does not, for a latent code has few dimensions.
double gate_of(const std::string& tensor, Precision precision) {
    const bool is_input = tensor == "x" || tensor == "epsilon";
    const bool is_loss = tensor == "loss";
    const bool is_recon = tensor == "recon";
    switch (precision) {
        case Precision::tf32:
            return is_input || is_loss ? 1e-5 : is_recon ? 1e-4 : 2e-2;
        case Precision::bf16:
            return is_input ? 1e-5 : is_loss ? 1e-4 : is_recon ? 1e-3 : 1e-1;
        case Precision::automatic:
        case Precision::fp32:
            break;
    }
    return is_loss || is_recon || tensor == "kl" ? 1e-6 : 1e-5;
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
