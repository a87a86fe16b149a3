// The same parameters, batch and noise through two backends, tensor by tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/checkpoint.h"

namespace vae {

// What one backend made of the first step, and of the parameters.
struct BackendRecord {
    StepSchedule schedule;  // of the first step
    Trace first_step;       // see Backend::trace
    Trace before;           // the parameters, by name
    Trace after;            // the same after all steps, as after.<name>, and then their average, if
                            // there is one, as after.ema.<name>
};

// Told now and then how many steps are trained.
using StepsDone = std::function<void(std::uint64_t)>;

// Sets the state, traces the first step of `start`, then trains `steps` steps on the batches that
// a run would take. The backend has the splits. Throws RunError when a step was skipped: two
// backends that both took none would agree.
BackendRecord record_steps(Backend& backend, const Checkpoint& start, std::uint64_t steps,
                           const StepsDone& on_steps = {});

// One tensor against its reference. relative_l2 = |value − reference|₂ / |reference|₂, or the
// absolute |value − reference|₂ where the reference is all zero.
struct TensorComparison {
    std::string name;
    std::size_t elements = 0;
    double relative_l2 = 0;
    double largest_error = 0;  // absolute
    double gate = 0;           // of relative_l2
    bool is_ok = false;        // false for a NaN on either side, another shape, and no elements
    double uncapped_gate = 0;  // what it would be without a cap; see compare_after
};
TensorComparison compare_tensor(const TracedTensor& value, const TracedTensor& reference,
                                double gate);

// Tensors are matched by name, in the reference's order; one that only one side has is a failure
// of no elements. A kl that is estimated is a mean of differences of log-densities, not of terms of
// one sign, and has the gate of all else.
std::vector<TensorComparison> compare_traces(const Trace& values, const Trace& references,
                                             KlTerm kl = KlTerm::analytic,
                                             Precision precision = Precision::fp32);

// Training amplifies rounding: where a gradient is nearly zero, Adam's first steps follow its sign,
// and a ReLU turns on or off. So parameters after many steps are held to what rounding does to the
// reference itself: the parameters after the same steps of `reference` from parameters that are
// each moved by one unit in the last place of the precision, up and down in turn.
Trace nudged_after(Backend& reference, const Checkpoint& start, std::uint64_t steps,
                   const StepsDone& on_steps = {}, Precision precision = Precision::fp32);

// compare_traces of after.* tensors. The gate is gate_of, or ten times the distance of `nudged`
// from the reference where that is more, but never above most_gate: beyond it a wrong backend could
// pass.
double most_gate(Precision precision);
std::vector<TensorComparison> compare_after(const Trace& values, const Trace& references,
                                            const Trace& nudged,
                                            Precision precision = Precision::fp32);

// Relative L2 that a backend must keep against double.
double gate_of(const std::string& tensor, Precision precision = Precision::fp32);

// Whether all are within their gates. Nothing is not.
bool all_ok(const std::vector<TensorComparison>& comparisons);

// Whether a tensor misses a gate for its cap alone: rounding may have moved it as far.
bool is_too_sensitive(const std::vector<TensorComparison>& comparisons);

// The record as safetensors, F64 or F32: first_step's tensors, the parameters before under their
// names, after.<name>. Metadata: config, beta and learning_rate of the first step, steps, batch
// (rows of the first step) and backend.
void write_dump(const std::filesystem::path& path, const BackendRecord& record,
                const Config& config, std::uint64_t steps, const Backend& backend);

}  // namespace vae
