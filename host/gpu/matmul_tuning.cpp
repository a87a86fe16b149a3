#include "host/gpu/matmul_tuning.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include "host/gpu/cuda_backend.h"
#include "host/gpu/graph.h"
#include "host/gpu/product_operands.h"
#include "host/gpu/timed_event.h"

namespace vae::gpu {
namespace {

constexpr int kRepetitions = 7;  // the least time counts: whatever disturbs makes it longer
constexpr std::size_t kLeastProducts = 8;   // in one graph, unless fewer …
constexpr double kLeastMilliseconds = 0.5;  // … take so long
constexpr double kHopeless = 2;             // times the best: not looked at any further
constexpr double kLaunchMicroseconds = 50;  // what a product that is not in a graph may take longer
constexpr double kSameTime = 1.01;          // within it the algorithm of fewer nodes wins

// Milliseconds from before to behind what run() gives the stream; waits.
template <class Run>
double milliseconds_of(const Stream& stream, const Run& run) {
    TimedEvent start;
    TimedEvent end;
    start.record(stream);
    run();
    end.record(stream);
    return end.milliseconds_since(start);
}

// So many products in a graph that its start is a small part of it, and no matrix is in the cache
// that was used before.
std::size_t products_in_graph(double milliseconds, std::size_t copies) {
    const double enough = kLeastMilliseconds / std::max(milliseconds, 1e-3);
    return std::max(copies, std::min(kLeastProducts, static_cast<std::size_t>(std::ceil(enough))));
}

// Nothing when cuBLASLt does not run the algorithm after all. One that takes far longer than
// `limit`, in microseconds, is not looked at closely: its time is that of one launch, its nodes are
// 0.
std::optional<MeasuredAlgorithm> measure(cublasLtHandle_t handle, const MatmulLane& lane,
                                         MatmulPlan& plan, ProductOperands& operands,
                                         double limit) {
    const auto multiply = [&](std::size_t copy) { operands.multiply(handle, lane, plan, copy); };
    double once = 0;
    try {
        multiply(0);  // what is loaded at its first use is there when a graph is captured
        once = milliseconds_of(lane.stream, [&] { multiply(1); });
    } catch (const RunError&) {
        return std::nullopt;
    }
    MeasuredAlgorithm measured;
    static_assert(sizeof measured.words == sizeof plan.algorithm);
    std::memcpy(measured.words.data(), &plan.algorithm, sizeof plan.algorithm);
    measured.microseconds = 1e3 * once;
    if (measured.microseconds > kHopeless * limit + kLaunchMicroseconds) return measured;
    const std::size_t products = products_in_graph(once, operands.copies());
    std::optional<Graph> graph;
    try {
        graph.emplace(lane.stream, [&] {
            for (std::size_t i = 0; i < products; ++i) multiply(i % operands.copies());
        });
    } catch (const RunError&) {
        return std::nullopt;
    }
    const auto replay = [&] { graph->launch(lane.stream); };
    replay();
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kRepetitions; ++i) {
        least = std::min(least, milliseconds_of(lane.stream, replay));
    }
    measured.microseconds = 1e3 * least / static_cast<double>(products);
    measured.nodes = static_cast<int>(graph->nodes() / products);
    return measured;
}

// A measured algorithm, and whether the product's epilogue, if it has one, is part of it.
struct Candidate {
    MeasuredAlgorithm measured;
    bool is_fused = true;
};

// Of two that are alike in is_fused the faster one, or that of fewer kernels if they are as fast. A
// run that decides by counting turns to other products, which nobody measured, where the epilogue
// has a kernel of its own: so where cuBLASLt's first proposal has none, whatever has none wins.
bool is_better(const Candidate& a, const Candidate& b) {
    if (a.is_fused != b.is_fused) return a.is_fused;
    const double time = a.measured.microseconds;
    const double other = b.measured.microseconds;
    const bool is_same = time <= kSameTime * other && other <= kSameTime * time;
    if (is_same && a.measured.nodes != b.measured.nodes) return a.measured.nodes < b.measured.nodes;
    return time < other;
}

// The best algorithm of a product, and what the report says of it.
std::optional<MeasuredAlgorithm> tune(const MatmulPlans& plans, const MatmulLane& lane,
                                      const MatmulProduct& product, TunedProduct& report) {
    const bool has_epilogue = product.epilogue != MatmulEpilogue::none;
    ProductOperands operands(product, lane.stream, ProductOperands::Copies::beyond_cache);
    std::optional<Candidate> best;
    double first = 0;
    bool wants_fused = has_epilogue;
    for (const cublasLtMatmulAlgo_t& algorithm : plans.candidates(product)) {
        MatmulPlan plan = {.problem = MatmulProblem(product), .algorithm = algorithm};
        const double limit = best && best->is_fused  // else a slower one may win
                                 ? best->measured.microseconds
                                 : std::numeric_limits<double>::infinity();
        const auto measured = measure(plans.handle(), lane, plan, operands, limit);
        if (!measured) continue;
        const bool is_fused = measured->nodes <= least_kernels(algorithm);
        if (++report.candidates == 1) {
            first = measured->microseconds;
            wants_fused = has_epilogue && is_fused;
        }
        const Candidate candidate = {*measured, !wants_fused || is_fused};
        if (best && !is_better(candidate, *best)) continue;
        best = candidate;
        report.algorithm = describe(algorithm);
    }
    if (!best) return std::nullopt;
    report.product = name_of(product.kind);
    if (has_epilogue) report.product += fmt::format(" {}", name_of(product.epilogue));
    report.types = name_of(product.types);
    report.rows = product.rows;
    report.in = product.in;
    report.out = product.out;
    report.microseconds = best->measured.microseconds;
    report.teraflops = product.flops() / report.microseconds * 1e-6;
    report.nodes = best->measured.nodes;
    report.gain = first / report.microseconds;
    return best->measured;
}

}  // namespace

TuningReport tune_products(const std::vector<MatmulProduct>& products) {
    const Stream stream;
    const MatmulLane lane(stream);
    const MatmulPlans plans;
    TuningReport report;
    std::map<MatmulProduct, MeasuredAlgorithm> fastest;
    for (const MatmulProduct& product : products) {
        TunedProduct tuned;
        const auto best = tune(plans, lane, product, tuned);
        if (!best) continue;
        fastest[product] = *best;
        report.products.push_back(tuned);
    }
    const auto file = save_matmul_algorithms(plans.device(), fastest);
    if (file) report.file = file->string();
    return report;
}

std::vector<MatmulProduct> products_of_run(const Config& config, const ParameterLayout& layout,
                                           const Splits& splits) {
    CudaBackend backend(config, layout, AutoPlan::counted);
    backend.set_data(splits);
    backend.set_state(start_state(
        config.train, initial_parameters(layout, config.model.initialization, config.train.seed)));
    const std::uint32_t batch = config.train.batch;
    const std::size_t examples = splits.train.size;
    // A full batch, if there is one, and what an epoch ends with.
    std::vector<std::uint32_t> rows(examples < batch ? examples : batch + examples % batch);
    std::iota(rows.begin(), rows.end(), 0U);
    backend.train({.rows = rows,
                   .batch = batch,
                   .schedule = {{config.train.learning_rate, config.train.beta}}});
    (void)backend.take_totals();
    for (const Split split : {Split::validation, Split::test}) {
        if (splits.of(split).size > 0) (void)backend.evaluate(split, config.train.beta);
    }
    return backend.products();
}

}  // namespace vae::gpu
