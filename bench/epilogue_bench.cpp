// Which epilogues cuBLASLt computes inside a product's own kernel, for each product of the
// workloads and each type, and what they take over the product without one. Timed in a captured
// graph of the same product again and again, as a training step has it in a row: small operands are
// in the L2 cache, large ones are not.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/findings.h"
#include "bench/machine_bench.h"
#include "bench/step_products.h"
#include "host/backend.h"
#include "host/gpu/graph.h"
#include "host/gpu/product_operands.h"

namespace vae::bench {
namespace {

using gpu::MatmulEpilogue;
using gpu::MatmulKind;
using gpu::MatmulPlan;
using gpu::MatmulProduct;
using gpu::MatmulTypes;

constexpr int kIterations = 5;
constexpr double kFlopsOfGraph = 5e10;  // of about so many, but of a small product no more than
constexpr int kMostInGraph = 40;

// An epilogue of a training run, or another one that cuBLASLt is asked for here alone.
struct Probe {
    const char* name;
    MatmulKind kind;
    MatmulEpilogue epilogue = MatmulEpilogue::none;
    std::optional<cublasLtEpilogue_t> other = std::nullopt;

    bool is_plain() const { return epilogue == MatmulEpilogue::none && !other; }
    bool has_bias() const { return other.has_value() || gpu::has_bias(epilogue); }
    bool has_bits() const {
        return other == CUBLASLT_EPILOGUE_DRELU_BGRAD || gpu::has_bits(epilogue);
    }
};

// The plain product first: the others are compared with it.
const std::vector<Probe>& probes() {
    static const std::vector<Probe> all = {
        {"none", MatmulKind::forward},
        {"bias", MatmulKind::forward, MatmulEpilogue::none, CUBLASLT_EPILOGUE_BIAS},
        {"bias_relu", MatmulKind::forward, MatmulEpilogue::bias_relu},
        {"none", MatmulKind::backward_input},
        {"relu_backward", MatmulKind::backward_input, MatmulEpilogue::relu_backward},
        {"relu_backward_bias_gradient", MatmulKind::backward_input, MatmulEpilogue::none,
         CUBLASLT_EPILOGUE_DRELU_BGRAD},
        {"none", MatmulKind::backward_weight},
        {"bias_gradient", MatmulKind::backward_weight, MatmulEpilogue::bias_gradient}};
    return all;
}

// A product of a step, and where it comes up: L/tf32/encoder.1/forward.
struct Shape {
    MatmulProduct product;
    std::vector<std::string> uses;
    std::string name;
};

// cuBLASLt, and the operands of the product that was measured last.
class Epilogues {
  public:
    explicit Epilogues(Machine& machine) : machine_(machine), lane_(machine.stream()) {}

    void measure(benchmark::State& state, const Shape& shape, const Probe& probe) {
        const std::string where =
            fmt::format("{}/{}/", gpu::name_of(shape.product.types), probe.name);
        MatmulPlan* const plan = plan_of(shape.product, probe);
        state.counters["has"] = plan != nullptr ? 1 : 0;
        if (plan == nullptr) {
            findings().note("fused/" + where + shape.name, 0);
            return leave_out(state, "cuBLASLt has no algorithm for it");
        }
        gpu::ProductOperands& operands = operands_of(shape.product);
        const auto run = [&] {
            gpu::run_plan(plans_.handle(), lane_, *plan, operands.a(), operands.b(), operands.d(),
                          {.bias = probe.has_bias() ? operands.bias() : nullptr,
                           .bits = probe.has_bits() ? operands.bits() : nullptr});
        };
        run();  // loads its kernels
        const int products =
            std::clamp(static_cast<int>(kFlopsOfGraph / shape.product.flops()), 1, kMostInGraph);
        const gpu::Graph graph(machine_.stream(), [&] {
            for (int i = 0; i < products; ++i) run();
        });
        const double seconds = median_seconds(state, [&] {
            return machine_.stopwatch().time_again([&](cudaStream_t) {
                graph.launch(machine_.stream());
            }) / products;
        });
        const int nodes = static_cast<int>(graph.nodes()) / products;
        const int least = gpu::least_kernels(plan->algorithm);
        state.counters["kernels"] = nodes;
        state.counters["least_kernels"] = least;
        state.counters["flops"] = shape.product.flops() / seconds;
        state.SetLabel(fmt::format("{}algorithm {}",
                                   probe.is_plain() ? ""
                                   : nodes <= least ? "fused, "
                                                    : "not fused, ",
                                   gpu::describe(plan->algorithm)));
        if (probe.is_plain()) {
            plain_ = {shape.product, seconds};
            for (const std::string& use : shape.uses) findings().note("product/" + use, seconds);
            return;
        }
        findings().note("fused/" + where + shape.name, nodes <= least ? 1 : 0);
        if (plain_ && plain_->first == shape.product) {
            state.counters["us_over_plain"] = (seconds - plain_->second) * 1e6;
        }
    }

  private:
    // Null if cuBLASLt has none.
    MatmulPlan* plan_of(MatmulProduct product, const Probe& probe) {
        if (!probe.other) {
            product.epilogue = probe.epilogue;
            return plans_.find(product);
        }
        other_ = std::make_unique<MatmulPlan>(MatmulPlan{.problem = gpu::MatmulProblem(product)});
        gpu::ProductOperands& operands = operands_of(product);
        const int width = product.kind == MatmulKind::forward ? product.out : product.in;
        set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{*probe.other});
        if (probe.has_bits()) {
            set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
                std::int64_t{8} * gpu::relu_bits_pitch(width));
        }
        other_->problem.set_side(operands.bias(), probe.has_bits() ? operands.bits() : nullptr);
        const auto algorithms = plans_.candidates(product, other_->problem, true);
        if (algorithms.empty()) return nullptr;
        other_->algorithm = algorithms.front();
        return other_.get();
    }
    template <class T>
    void set(cublasLtMatmulDescAttributes_t attribute, T value) {
        gpu::cublas_check(cublasLtMatmulDescSetAttribute(&other_->problem.operation, attribute,
                                                         &value, sizeof value),
                          "cublasLtMatmulDescSetAttribute");
    }
    gpu::ProductOperands& operands_of(const MatmulProduct& product) {
        if (!operands_ || operands_->product() != product) {
            operands_.reset();  // before there are others
            operands_.emplace(product, machine_.stream());
        }
        return *operands_;
    }

    Machine& machine_;
    gpu::MatmulLane lane_;
    gpu::MatmulPlans plans_;
    std::unique_ptr<MatmulPlan> other_;
    std::optional<gpu::ProductOperands> operands_;
    std::optional<std::pair<MatmulProduct, double>> plain_;
};

// Each shape of the workloads once, in types that the products of a precision have.
std::vector<Shape> shapes_of(Precision precision, MatmulTypes types) {
    std::vector<Shape> shapes;
    for (const Workload& workload : workloads()) {
        for (const StepProduct& of : products_of(workload, precision)) {
            MatmulProduct product = of.product;
            product.types = types;
            auto shape = std::find_if(shapes.begin(), shapes.end(),
                                      [&](const Shape& each) { return each.product == product; });
            if (shape == shapes.end()) {
                const std::string name = fmt::format("{}/{}/{}x{}x{}", workload.name, of.name,
                                                     product.rows, product.in, product.out);
                shape = shapes.insert(shapes.end(), {product, {}, name});
            }
            if (of.product != product) continue;
            shape->uses.push_back(
                fmt::format("{}/{}/{}", workload.name, name_of(precision), of.name));
        }
    }
    return shapes;
}

}  // namespace

void add_epilogues(Machine& machine) {
    const auto epilogues = std::make_shared<std::optional<Epilogues>>();
    constexpr std::pair<Precision, MatmulTypes> kTypes[] = {
        {Precision::fp32, MatmulTypes::fp32},
        {Precision::tf32, MatmulTypes::tf32},
        {Precision::bf16, MatmulTypes::bf16},
        {Precision::bf16, MatmulTypes::bf16_to_fp32}};
    for (const auto& [precision, types] : kTypes) {
        for (const Shape& shape : shapes_of(precision, types)) {
            for (const Probe& probe : probes()) {
                if (probe.kind != shape.product.kind) continue;
                add_row(
                    fmt::format("epilogue/{}/{}/{}", gpu::name_of(types), shape.name, probe.name),
                    kIterations, [&machine, epilogues, shape, probe](benchmark::State& state) {
                        if (!*epilogues) epilogues->emplace(machine);
                        (*epilogues)->measure(state, shape, probe);
                    });
            }
        }
    }
}

}  // namespace vae::bench
