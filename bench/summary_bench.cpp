// What the design assumes of a GPU, one row each: what this run found, and what was predicted
// before anything had run on one (docs/performance.md). What was not measured says so.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/findings.h"
#include "bench/machine_bench.h"
#include "bench/step_products.h"
#include "host/backend.h"

namespace vae::bench {
namespace {

using Found = std::optional<double>;

struct Assumption {
    std::string name;
    std::string unit;
    double predicted = 0;
    std::function<Found()> measured;
};

// Of a finding in units of the SI, in others.
std::function<Found()> one(const std::string& name, double scale) {
    return [name, scale]() -> Found {
        const Found found = findings().find(name);
        return found ? Found(*found * scale) : std::nullopt;
    };
}

std::function<Found()> largest(const std::vector<std::string>& prefixes, double scale) {
    return [prefixes, scale]() -> Found {
        Found best;
        for (const std::string& prefix : prefixes) {
            for (const double value : findings().under(prefix)) {
                best = std::max(best.value_or(0), value * scale);
            }
        }
        return best;
    };
}

std::function<Found()> mean(const std::string& prefix, double scale) {
    return [prefix, scale]() -> Found {
        const std::vector<double> values = findings().under(prefix);
        if (values.empty()) return std::nullopt;
        const double sum = std::accumulate(values.begin(), values.end(), 0.0);
        return sum / static_cast<double>(values.size()) * scale;
    };
}

// All products of a step, if all of them were measured.
std::function<Found()> step_products(const std::string& name, Precision precision, double scale) {
    return [name, precision, scale]() -> Found {
        const auto found =
            findings().under(fmt::format("product/{}/{}/", name, name_of(precision)));
        if (found.size() != products_of(workload(name), precision).size()) return std::nullopt;
        return std::accumulate(found.begin(), found.end(), 0.0) * scale;
    };
}

constexpr double kMicro = 1e6;   // from seconds
constexpr double kMilli = 1e3;   // from seconds
constexpr double kTera = 1e-12;  // from one a second
constexpr double kGiga = 1e-9;   // from one a second
constexpr double kPercent = 100;

std::vector<Assumption> of_launches() {
    return {
        {"node", "us", 1.3, one("node/graph/one_block", kMicro)},
        {"node_of_a_wave", "us", 1.6, one("node/graph/one_wave", kMicro)},
        {"node_early", "us", 0.8, one("node/graph/one_wave_early", kMicro)},
        {"node_that_reads_what_the_last_wrote", "us", 1.8,
         one("node/graph/one_block_counts", kMicro)},
        {"node_eager", "us", 2.5, one("node/eager/one_wave", kMicro)},
        {"node_behind_a_product", "us", 1.6, one("node/after_product", kMicro)},
        {"node_behind_a_product_early", "us", 1.0, one("node/after_product_early", kMicro)},
        {"small_kernel", "us", 2, one("node/small_kernel", kMicro)},
        {"launch_first", "us", 300, one("launch/first", kMicro)},
        {"launch_of_a_kernel_until_done", "us", 8, one("launch/kernel", kMicro)},
        {"launch_of_a_graph_until_done", "us", 10, one("launch/graph", kMicro)},
        {"grid_barrier", "us", 1.2, one("barrier/grid/block_a_multiprocessor", kMicro)},
        {"grid_barrier_of_all_blocks", "us", 2.5, one("barrier/grid/full", kMicro)},
        {"cluster_barrier_8", "us", 0.2, one("barrier/cluster/size:8/clusters:1", kMicro)},
        {"cluster_barrier_16", "us", 0.25, one("barrier/cluster/size:16/clusters:1", kMicro)},
    };
}

// Peaks of an H100 or H200, dense: 67, 495 and 989 TFLOPS; memory of 3.35 or 4.8 TB/s.
std::vector<Assumption> of_rates() {
    return {
        {"products_fp32", "TFLOPS", 50, largest({"square/fp32/"}, kTera)},
        {"products_tf32", "TFLOPS", 371, largest({"square/tf32/"}, kTera)},
        {"products_bf16", "TFLOPS", 742, largest({"square/bf16/", "square_narrow/bf16/"}, kTera)},
        {"small_product", "us", 3.25, mean("product/S/tf32/", kMicro)},
        {"products_of_L_tf32", "ms", 7.6, step_products("L", Precision::tf32, kMilli)},
        {"products_of_L_bf16", "ms", 3.8, step_products("L", Precision::bf16, kMilli)},
        {"copy", "TB/s", 3, one("copy/device/MiB:1024", kTera)},
        {"copy_in_cache", "TB/s", 5.5, one("copy/cached/MiB:16", kTera)},
        {"copy_from_pinned_host", "GB/s", 50, one("copy/pinned/MiB:64", kGiga)},
        {"copy_from_pageable_host", "GB/s", 8, one("copy/pageable/MiB:64", kGiga)},
        {"adam_of_copy", "%", 80, one("percent_of_copy/adam", 1)},
        {"adam_bf16_of_copy", "%", 80, one("percent_of_copy/adam_bf16", 1)},
        {"gradient_statistics_of_copy", "%", 80, one("percent_of_copy/gradient_statistics", 1)},
        {"bernoulli_of_copy", "%", 80, one("percent_of_copy/bernoulli", 1)},
    };
}

// The share of shapes for which an epilogue costs no kernel of its own.
std::vector<Assumption> of_epilogues() {
    std::vector<Assumption> all;
    for (const std::string epilogue :
         {"bias", "bias_relu", "relu_backward", "relu_backward_bias_gradient", "bias_gradient"}) {
        for (const auto& [types, predicted] : std::vector<std::pair<std::string, double>>{
                 {"fp32", 0}, {"tf32", 0}, {"bf16", 100}, {"bf16-to-fp32", 100}}) {
            all.push_back({fmt::format("fused_{}_{}", epilogue, types), "%", predicted,
                           mean(fmt::format("fused/{}/{}/", types, epilogue), kPercent)});
        }
    }
    return all;
}

void add(const Assumption& assumption) {
    add_row("summary/" + assumption.name, 1, [assumption](benchmark::State& state) {
        const Found measured = assumption.measured();
        state.counters["predicted"] = assumption.predicted;
        if (!measured) return leave_out(state, "not measured; " + assumption.unit);
        for (auto _ : state) state.SetIterationTime(0);
        state.counters["measured"] = *measured;
        if (assumption.predicted > 0) {
            state.counters["of_predicted"] = *measured / assumption.predicted;
        }
        state.SetLabel(assumption.unit);
    });
}

}  // namespace

void add_summary() {
    for (const auto& assumptions : {of_launches(), of_rates(), of_epilogues()}) {
        for (const Assumption& each : assumptions) add(each);
    }
}

}  // namespace vae::bench
