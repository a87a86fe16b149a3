#include "host/gpu/matmul_tuning.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "host/gpu/cuda_backend.h"
#include "host/gpu/graph.h"
#include "host/gpu/timed_event.h"

namespace vae::gpu {
namespace {

constexpr int kRepetitions = 7;  // the least time counts: whatever disturbs makes it longer
constexpr std::size_t kLeastProducts = 8;   // in one graph, unless fewer …
constexpr double kLeastMilliseconds = 0.5;  // … take so long
constexpr double kHopeless = 2;             // times the best: not looked at any further
constexpr double kLaunchMicroseconds = 50;  // what a product that is not in a graph may take longer
constexpr std::size_t kMostCopies = 64;
constexpr double kSameTime = 1.01;  // within it the algorithm of fewer nodes wins
constexpr std::size_t kRowAlignment = 256;

std::size_t second_level_cache_bytes() {
    int bytes = 0;
    int device = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device),
               "cudaDeviceGetAttribute");
    return static_cast<std::size_t>(bytes);
}

std::size_t rounded_up(std::size_t bytes) {
    return (bytes + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

// Random factors: how fast a GPU multiplies depends on the values, and zeros would flatter it.
std::vector<unsigned char> random_bytes(std::size_t elements, bool is_float, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<unsigned char> bytes(elements * (is_float ? sizeof(float) : 2));
    for (std::size_t i = 0; i < elements; ++i) {
        const float value = uniform(generator);
        const __nv_bfloat16 narrow = __float2bfloat16(value);
        const void* source = is_float ? static_cast<const void*>(&value) : &narrow;
        const std::size_t size = is_float ? sizeof value : sizeof narrow;
        std::memcpy(bytes.data() + i * size, source, size);
    }
    return bytes;
}

// So many copies of a product's matrices that the device's second-level cache does not hold them
// all, as it does not hold all of a step; products take one after the other.
class Operands {
  public:
    Operands(const MatmulProduct& product, const Stream& stream) {
        const auto elements = [](int rows, int columns) {
            return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
        };
        const std::size_t weight = elements(product.out, product.in);
        const std::size_t input = elements(product.rows, product.in);
        const std::size_t output = elements(product.rows, product.out);
        std::array<std::size_t, 3> sizes = {};  // of a, b and d
        switch (product.kind) {
            case MatmulKind::forward:
                sizes = {weight, input, output};
                break;
            case MatmulKind::backward_input:
                sizes = {weight, output, input};
                break;
            case MatmulKind::backward_weight:
                sizes = {input, output, weight};
                break;
        }
        const bool is_float = is_of_floats(product.types);
        const auto a = random_bytes(sizes[0], is_float, 1);
        const auto b = random_bytes(sizes[1], is_float, 2);
        const std::size_t widest = static_cast<std::size_t>(std::max(product.in, product.out));
        b_ = rounded_up(a.size());
        d_ = b_ + rounded_up(b.size());
        bias_ = d_ + rounded_up(sizes[2] * sizeof(float));
        bits_ = bias_ + rounded_up(widest * sizeof(float));
        copy_ = bits_ + rounded_up(static_cast<std::size_t>(product.rows) *
                                   static_cast<std::size_t>(
                                       relu_bits_pitch(std::max(product.in, product.out))));
        epilogue_ = product.epilogue;
        copies_ =
            std::clamp<std::size_t>(2 * second_level_cache_bytes() / copy_ + 1, 2, kMostCopies);
        memory_ = {copies_ * copy_, "the matrices of a measured product"};
        memory_.zero(stream);
        for (std::size_t i = 0; i < copies_; ++i) {
            upload(at(i, 0), a, stream);
            upload(at(i, b_), b, stream);
        }
    }

    std::size_t copies() const { return copies_; }
    void* a(std::size_t copy) { return at(copy, 0); }
    void* b(std::size_t copy) { return at(copy, b_); }
    void* d(std::size_t copy) { return at(copy, d_); }
    MatmulExtra extra(std::size_t copy) {
        return {.bias = has_bias(epilogue_) ? at(copy, bias_) : nullptr,
                .bits = has_bits(epilogue_) ? at(copy, bits_) : nullptr};
    }

  private:
    unsigned char* at(std::size_t copy, std::size_t offset) {
        return memory_.data() + copy * copy_ + offset;
    }
    static void upload(unsigned char* to, const std::vector<unsigned char>& bytes,
                       const Stream& stream) {
        cuda_check(
            cudaMemcpyAsync(to, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream.get()),
            "cudaMemcpyAsync to the device");
        stream.synchronize();
    }

    std::size_t b_ = 0;  // offsets in a copy
    std::size_t d_ = 0;
    std::size_t bias_ = 0;
    std::size_t bits_ = 0;
    MatmulEpilogue epilogue_ = MatmulEpilogue::none;
    std::size_t copy_ = 0;  // bytes
    std::size_t copies_ = 0;
    DeviceArray<unsigned char> memory_;
};

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
                                         MatmulPlan& plan, Operands& operands, double limit) {
    const auto multiply = [&](std::size_t copy) {
        run_plan(handle, lane, plan, operands.a(copy), operands.b(copy), operands.d(copy),
                 operands.extra(copy));
    };
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
    Operands operands(product, lane.stream);
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
    CudaBackend backend(config, layout);
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
