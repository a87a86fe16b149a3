#include "host/gpu/plan_tuning.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>

#include "host/error.h"
#include "host/files.h"
#include "host/gpu/cuda_backend.h"
#include "host/gpu/matmul_tuning.h"
#include "host/gpu/tuning_file.h"

namespace vae::gpu {
namespace {

// Microseconds for which steps are taken before the clock runs, as a GPU takes a while to reach its
// own clock, and then, as the least time counts: whatever disturbs makes it longer.
constexpr double kWarmUp = 5e4;
constexpr double kLeastMeasured = 1e5;
constexpr int kChunks = 5;             // of steps, at least, unless fewer …
constexpr double kMostMeasured = 2e6;  // … take so long
constexpr double kHopeless = 2;        // times the best: not looked at any further
constexpr double kSameTime = 1.02;     // within it the plan of fewer surprises wins

// Training steps as a run takes them, with their time.
class TimedSteps {
  public:
    TimedSteps(CudaBackend& backend, const Config& config, const ParameterLayout& layout,
               const Splits& splits)
        : backend_(backend),
          train_(config.train),
          examples_(static_cast<std::uint32_t>(splits.train.size)),
          chunk_(std::clamp(examples_ / train_.batch, 1U,
                            static_cast<std::uint32_t>(backend.graph_steps()))) {
        backend.set_data(splits);
        backend.set_state(start_state(
            train_, initial_parameters(layout, config.model.initialization, train_.seed)));
    }

    // Microseconds a step: the least of chunks of as many steps as a graph has, or an epoch if
    // fewer; of the first one alone if that is hopeless beside `best`.
    double measure(double best) {
        (void)take(1);  // whatever is done but once
        for (double spent = 0; spent < kWarmUp;) spent += take(chunk_);
        double least = std::numeric_limits<double>::infinity();
        double spent = 0;
        for (int chunks = 0; spent < kLeastMeasured || (chunks < kChunks && spent < kMostMeasured);
             ++chunks) {
            const double time = take(chunk_);
            spent += time;
            least = std::min(least, time / chunk_);
            if (least > kHopeless * best) break;
        }
        return least;
    }

  private:
    // Microseconds from the first call until the losses of so many steps are known.
    double take(std::uint32_t steps) {
        const auto start = std::chrono::steady_clock::now();
        backend_.train(
            {.first_step = steps_,
             .batch = train_.batch,
             .schedule = {{train_.learning_rate, train_.beta}},
             .part = {.epoch = epoch_, .count = std::min(steps * train_.batch, examples_)}});
        (void)backend_.take_totals();
        const auto end = std::chrono::steady_clock::now();
        steps_ += steps;
        ++epoch_;
        return std::chrono::duration<double, std::micro>(end - start).count();
    }

    CudaBackend& backend_;
    const TrainConfig train_;
    const std::uint32_t examples_;
    const std::uint32_t chunk_;
    std::uint32_t epoch_ = 0;
    std::uint64_t steps_ = 0;
};

// A plan that may be the fastest.
struct Candidate {
    FusionPlan plan = FusionPlan::automatic;
    TunedPlan report = {};
    StepPlan step = {};
    bool is_measured = false;  // and not the same as an earlier one
};

// One that is set is the only one. The first one is to be had always.
std::vector<Candidate> candidates_of(const Config& config) {
    if (config.train.plan != FusionPlan::automatic) return {{.plan = config.train.plan}};
    std::vector<Candidate> all;
    for (const FusionPlan plan :
         {FusionPlan::cublas, FusionPlan::automatic, FusionPlan::epilogue, FusionPlan::fused}) {
        if (!can_have(plan, config.model)) continue;
        all.push_back({.plan = plan, .report = {.plan = name_of(plan)}});
    }
    return all;
}

class PlanTuning {
  public:
    PlanTuning(const Config& config, const ParameterLayout& layout, const Splits& splits)
        : config_(config), layout_(layout), splits_(splits), candidates_(candidates_of(config)) {}

    bool has_choice() const { return candidates_.size() > 1; }

    // Of all plans; each is run in all that a run does, so that one that fails is out.
    std::vector<MatmulProduct> products() {
        std::set<MatmulProduct> all;
        try_each([&](const Candidate& candidate) {
            const auto own = products_of_run(config_with(candidate.plan), layout_, splits_);
            all.insert(own.begin(), own.end());
        });
        return {all.begin(), all.end()};
    }

    // Once the algorithms of the products are kept: all plans, of which it keeps the best.
    void measure(TuningReport& report) {
        try_each([this](Candidate& candidate) { measure(candidate); });
        std::vector<MeasuredPlan> measured;
        for (const Candidate& candidate : candidates_) {
            if (!candidate.is_measured) continue;
            measured.push_back({candidate.plan, candidate.report.microseconds});
        }
        const MeasuredPlan kept = plan_to_keep(measured);
        (void)save_plan(config_, layout_, precision_, kept);
        for (const Candidate& candidate : candidates_) {
            if (!candidate.is_measured && candidate.report.problem.empty()) continue;
            report.plans.push_back(candidate.report);
            report.plans.back().is_kept = candidate.plan == kept.plan;
        }
    }

  private:
    Config config_with(FusionPlan plan) const {
        Config config = config_;
        config.train.plan = plan;
        return config;
    }

    // Those that did not fail.
    template <class Run>
    void try_each(const Run& run) {
        for (Candidate& candidate : candidates_) {
            if (!candidate.report.problem.empty()) continue;
            try {
                run(candidate);
            } catch (const std::runtime_error& error) {
                if (&candidate == &candidates_.front()) throw;
                candidate.report.problem = error.what();
                expect_device_to_go_on(candidate);
            }
        }
    }

    // Of some failures no device recovers.
    static void expect_device_to_go_on(const Candidate& candidate) {
        if (cudaDeviceSynchronize() == cudaSuccess) return;
        throw RunError(fmt::format("the GPU failed in plan {}: {}; set train.plan to another one",
                                   name_of(candidate.plan), candidate.report.problem));
    }

    void measure(Candidate& candidate) {
        const Config config = config_with(candidate.plan);
        CudaBackend backend(config, layout_, AutoPlan::counted);
        precision_ = backend.precision();
        const StepPlan step = backend.step_plan();
        const auto same = std::find_if(
            candidates_.begin(), candidates_.end(),
            [&](const Candidate& other) { return other.is_measured && other.step == step; });
        const bool is_counted = candidate.plan == FusionPlan::automatic;
        if (same != candidates_.end()) {
            same->report.is_counted = same->report.is_counted || is_counted;
            return;
        }
        candidate.report.microseconds =
            TimedSteps(backend, config, layout_, splits_).measure(best_);
        candidate.report.plan = backend.plan();
        candidate.report.is_counted = is_counted;
        candidate.step = step;
        candidate.is_measured = true;
        best_ = std::min(best_, candidate.report.microseconds);
    }

    const Config& config_;
    const ParameterLayout& layout_;
    const Splits& splits_;
    std::vector<Candidate> candidates_;
    Precision precision_ = Precision::automatic;  // of the last one measured
    double best_ = std::numeric_limits<double>::infinity();
};

}  // namespace

MeasuredPlan plan_to_keep(const std::vector<MeasuredPlan>& measured) {
    const auto fastest = std::min_element(
        measured.begin(), measured.end(),
        [](const auto& a, const auto& b) { return a.microseconds < b.microseconds; });
    if (fastest == measured.end()) throw std::invalid_argument("plan_to_keep: nothing measured");
    for (const FusionPlan plan : {FusionPlan::cublas, FusionPlan::automatic}) {
        for (const MeasuredPlan& one : measured) {
            const bool is_as_fast = one.microseconds <= kSameTime * fastest->microseconds;
            if (one.plan == plan && is_as_fast) return one;
        }
    }
    return *fastest;
}

TuningReport tune_run(const Config& config, const ParameterLayout& layout, const Splits& splits) {
    // Before minutes of measuring.
    if (const auto file = tuning_file_path()) {
        std::error_code failure;  // then the file is no more writable than the folder
        std::filesystem::create_directories(file->parent_path(), failure);
        check_writable(*file);
    }
    PlanTuning plans(config, layout, splits);
    TuningReport report = tune_products(plans.products());
    if (plans.has_choice()) plans.measure(report);
    return report;
}

}  // namespace vae::gpu
