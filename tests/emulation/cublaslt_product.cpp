// The products of the emulated cuBLASLt, computed by OpenBLAS on one thread when the stream's turn
// comes, and their epilogues.
#include <cblas.h>
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "cublaslt.h"
#include "number_formats.h"

namespace emulation {
namespace {

// Tests must not look at the bits that TF32 lacks.
float to_tf32(float value) {
    return runtime().tf32 == Tf32::round ? round_to_tf32(value) : cut_to_tf32(value);
}

float load_element(const void* matrix, std::uint32_t type, std::size_t at) {
    return type == CUDA_R_16BF ? from_bf16(static_cast<const std::uint16_t*>(matrix)[at])
                               : static_cast<const float*>(matrix)[at];
}

void store_element(void* matrix, std::uint32_t type, std::size_t at, float value) {
    if (type == CUDA_R_16BF) {
        static_cast<std::uint16_t*>(matrix)[at] = to_bf16(value);
    } else {
        static_cast<float*>(matrix)[at] = value;
    }
}

std::size_t index_of(const LtLayout& layout, int row, int column) {
    return static_cast<std::size_t>(column) * static_cast<std::size_t>(layout.ld) +
           static_cast<std::size_t>(row);
}

// A factor as floats of the precision that the product computes in; the matrix itself where these
// are the same.
struct Factor {
    Factor(const LtProduct& product, const void* matrix, const LtLayout& layout) {
        ld = static_cast<int>(layout.ld);
        data = static_cast<const float*>(matrix);
        if (!product.is_bf16() && !product.is_tf32()) return;
        ld = static_cast<int>(layout.rows);
        copy.reserve(layout.rows * layout.columns);
        for (int j = 0; j < static_cast<int>(layout.columns); ++j) {
            for (int i = 0; i < ld; ++i) {
                const float value = load_element(matrix, layout.type, index_of(layout, i, j));
                copy.push_back(product.is_tf32() ? to_tf32(value) : value);
            }
        }
        data = copy.data();
    }

    std::vector<float> copy;
    const float* data = nullptr;
    int ld = 0;
};

// One thread, for bits depend on how many there are; puts back what others asked for.
class OneThread {
  public:
    OneThread() { openblas_set_num_threads(1); }
    ~OneThread() {
        openblas_set_num_threads(blas_);
        omp_set_num_threads(openmp_);
    }
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;
    OneThread(OneThread&&) = delete;
    OneThread& operator=(OneThread&&) = delete;

  private:
    int openmp_ = omp_get_max_threads();
    int blas_ = openblas_get_num_threads();
};

struct Work {
    LtProduct product;
    LtPlan plan;
    LtOperands operands;

    std::size_t elements() const {
        return static_cast<std::size_t>(product.m) * static_cast<std::size_t>(product.n);
    }
    bool is_bias_read() const { return (product.operation.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0; }
    bool is_derivative() const { return (product.operation.epilogue & 8u) != 0; }
    std::size_t mask_bytes() const {
        return static_cast<std::size_t>(product.operation.aux_ld) / 8 *
               static_cast<std::size_t>(product.n);
    }
};

// Elements of the vector beside the result: a bias, or the gradient of one.
std::size_t bias_size(const Work& work) {
    switch (work.product.operation.epilogue) {
        case CUBLASLT_EPILOGUE_BIAS:
        case CUBLASLT_EPILOGUE_RELU_BIAS:
        case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
        case CUBLASLT_EPILOGUE_DRELU_BGRAD:
        case CUBLASLT_EPILOGUE_BGRADA:
            return static_cast<std::size_t>(work.product.m);
        case CUBLASLT_EPILOGUE_BGRADB:
            return static_cast<std::size_t>(work.product.n);
        default:
            return 0;
    }
}

bool is_on_device(const void* matrix, const LtLayout& layout) {
    const std::size_t size =
        (layout.columns - 1) * static_cast<std::size_t>(layout.ld) + layout.rows;
    return is_device_range(matrix, size * size_of(layout.type));
}

// The product itself is computed by a library that no sanitizer sees.
bool check_memory(const Work& work) {
    const LtProduct& p = work.product;
    const LtOperands& of = work.operands;
    bool is_fine = is_on_device(of.a, p.a) && is_on_device(of.b, p.b) && is_on_device(of.d, p.d) &&
                   (of.beta == 0 || is_on_device(of.c, p.c));
    const std::size_t bias = bias_size(work) * size_of(p.d.type);
    if (bias > 0) is_fine = is_fine && is_device_range(p.operation.bias, bias);
    if (work.product.operation.has_mask()) {
        is_fine = is_fine && is_device_range(p.operation.aux, work.mask_bytes());
    }
    if (!is_fine) {
        break_device(cudaErrorIllegalAddress,
                     fmt::format("a matrix of a cuBLASLt product {}x{}x{} is not inside one device "
                                 "allocation",
                                 p.m, p.n, p.k));
    }
    return is_fine;
}

// The part [first, last) of the sum over k, as [m, n] without gaps.
void run_part(const LtProduct& p, const LtPlan& plan, const Factor& a, const Factor& b, int first,
              int last, float* out) {
    const bool is_a_plain = p.operation.trans_a == CUBLAS_OP_N;
    const bool is_b_plain = p.operation.trans_b == CUBLAS_OP_N;
    const int step = plan.chunk > 0 ? plan.chunk : last - first;
    for (int k = first; k < last; k += step) {
        const auto from_a = static_cast<std::ptrdiff_t>(k) * (is_a_plain ? a.ld : 1);
        const auto from_b = static_cast<std::ptrdiff_t>(k) * (is_b_plain ? 1 : b.ld);
        cblas_sgemm(CblasColMajor, is_a_plain ? CblasNoTrans : CblasTrans,
                    is_b_plain ? CblasNoTrans : CblasTrans, p.m, p.n, std::min(step, last - k), 1,
                    a.data + from_a, a.ld, b.data + from_b, b.ld, k == first ? 0.0F : 1.0F, out,
                    p.m);
    }
}

// The gradient of a bias, as a sum over k of a factor, which is stored with one column for each.
void sum_factor(const Work& work) {
    const LtProduct& p = work.product;
    const bool is_of_a = p.operation.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    const LtLayout& layout = is_of_a ? p.a : p.b;
    const void* const matrix = is_of_a ? work.operands.a : work.operands.b;
    const int size = is_of_a ? p.m : p.n;
    for (int i = 0; i < size; ++i) {
        float sum = 0;
        for (int k = 0; k < p.k; ++k) {
            sum += load_element(matrix, layout.type, index_of(layout, i, k));
        }
        store_element(p.operation.bias, p.d.type, static_cast<std::size_t>(i), sum);
    }
}

// One element of the result. `mask` is where its bit is.
float activate(const Work& work, float value, int row, std::size_t mask) {
    const LtOperation& operation = work.product.operation;
    auto* const bits = static_cast<unsigned char*>(operation.aux);
    const auto bit = static_cast<unsigned char>(1u << (mask % 8));
    if (work.is_derivative()) return (bits[mask / 8] & bit) != 0 ? value : 0.0F;
    if (work.is_bias_read()) {
        value += load_element(operation.bias, work.product.d.type, static_cast<std::size_t>(row));
    }
    if ((operation.epilogue & CUBLASLT_EPILOGUE_RELU) == 0) return value;
    if (work.product.operation.has_mask()) {
        // At 0 and at NaN either is right: who relies on one of them finds the other in another
        // order of turns.
        const bool is_descending = runtime().turns.order == Turns::Order::descending;
        const bool is_set = is_descending ? !(value < 0) : value > 0;
        bits[mask / 8] =
            static_cast<unsigned char>(is_set ? bits[mask / 8] | bit : bits[mask / 8] & ~bit);
    }
    if (value != value && runtime().relu_keeps_nan) return value;
    return value > 0 ? value : 0.0F;
}

// Turns the product [m, n] into the result.
void run_epilogue(const Work& work, std::vector<float>& values) {
    const LtProduct& p = work.product;
    const std::uint32_t epilogue = p.operation.epilogue;
    if (epilogue == CUBLASLT_EPILOGUE_BGRADA || epilogue == CUBLASLT_EPILOGUE_BGRADB) {
        sum_factor(work);
        return;
    }
    std::vector<float> sums(epilogue == CUBLASLT_EPILOGUE_DRELU_BGRAD ? p.m : 0, 0.0F);
    for (int j = 0; j < p.n; ++j) {
        for (int i = 0; i < p.m; ++i) {
            float& value = values[static_cast<std::size_t>(j) * p.m + i];
            value = activate(
                work, value, i,
                static_cast<std::size_t>(j) * static_cast<std::size_t>(p.operation.aux_ld) +
                    static_cast<std::size_t>(i));
            if (!sums.empty()) sums[static_cast<std::size_t>(i)] += value;
        }
    }
    for (std::size_t i = 0; i < sums.size(); ++i) {
        store_element(p.operation.bias, p.d.type, i, sums[i]);
    }
}

void scale(const Work& work, std::vector<float>& values) {
    const LtProduct& p = work.product;
    const LtOperands& of = work.operands;
    for (int j = 0; j < p.n; ++j) {
        for (int i = 0; i < p.m; ++i) {
            float& value = values[static_cast<std::size_t>(j) * p.m + i];
            value *= of.alpha;
            if (of.beta == 0) continue;
            value += of.beta * load_element(of.c, p.c.type, index_of(p.c, i, j));
        }
    }
}

void store_result(const Work& work, const std::vector<float>& values) {
    const LtProduct& p = work.product;
    for (int j = 0; j < p.n; ++j) {
        for (int i = 0; i < p.m; ++i) {
            store_element(work.operands.d, p.d.type, index_of(p.d, i, j),
                          values[static_cast<std::size_t>(j) * p.m + i]);
        }
    }
}

// From the sum to the result; the epilogue too if it is part of the same kernel.
void finish(const Work& work, std::vector<float>& sum) {
    scale(work, sum);
    if (work.plan.fuses_epilogue) run_epilogue(work, sum);
    store_result(work, sum);
}

// Where each part of a split sum begins, and the end.
std::vector<int> split_points(const Work& work) {
    const int splits = work.plan.algorithm.parts();
    std::vector<int> points;
    for (int i = 0; i <= splits; ++i) {
        points.push_back(static_cast<int>(std::int64_t{work.plan.terms} * i / splits));
    }
    return points;
}

// Adds the parts into the result itself. Where nobody promises that they come one after the other,
// each does as soon as it is done: who relies on the bits finds them different in another order of
// turns.
void add_in_place(const Work& work, const Factor& a, const Factor& b) {
    const LtProduct& p = work.product;
    const std::vector<int> points = split_points(work);
    std::vector<int> order(points.size() - 1);
    std::iota(order.begin(), order.end(), 0);
    Turns& turns = runtime().turns;
    const LtAlgorithm& algorithm = work.plan.algorithm;
    const bool is_any_order =
        algorithm.splits < 0 || algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE;
    if (is_any_order && turns.order == Turns::Order::descending) {
        std::reverse(order.begin(), order.end());
    }
    if (is_any_order && turns.order == Turns::Order::random) turns.random.shuffle(order);
    std::vector<float> sum(work.elements(), 0.0F);
    std::vector<float> part(work.elements());
    for (const int i : order) {
        run_part(p, work.plan, a, b, points[i], points[i + 1], part.data());
        for (std::size_t at = 0; at < sum.size(); ++at) {
            sum[at] += part[at];
            if (p.d.type == CUDA_R_16BF) sum[at] = from_bf16(to_bf16(sum[at]));
        }
    }
    finish(work, sum);
}

std::uint32_t type_of_parts(const Work& work) {
    const std::uint32_t reduction = work.plan.algorithm.reduction;
    if (reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE) return work.product.d.type;
    return CUDA_R_32F;
}

bool splits_into_workspace(const LtPlan& plan) {
    const std::uint32_t reduction = plan.algorithm.reduction;
    return plan.algorithm.splits > 1 && (reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE ||
                                         reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE);
}

void run_product(const Work& work) {
    if (!check_memory(work)) return;
    const LtProduct& p = work.product;
    const OneThread one_thread;
    const Factor a(p, work.operands.a, p.a);
    const Factor b(p, work.operands.b, p.b);
    // Nobody else may rely on what is in there.
    if (work.plan.workspace > 0) std::memset(work.operands.workspace, 0xff, work.plan.workspace);
    std::vector<float> part(work.elements());
    if (work.plan.algorithm.splits == 1) {
        run_part(p, work.plan, a, b, 0, work.plan.terms, part.data());
        finish(work, part);
    } else if (!splits_into_workspace(work.plan)) {
        add_in_place(work, a, b);
    } else {
        const std::vector<int> points = split_points(work);
        for (std::size_t i = 0; i + 1 < points.size(); ++i) {
            run_part(p, work.plan, a, b, points[i], points[i + 1], part.data());
            for (std::size_t at = 0; at < part.size(); ++at) {
                store_element(work.operands.workspace, type_of_parts(work), i * part.size() + at,
                              part[at]);
            }
        }
    }
}

void add_parts(const Work& work) {
    if (!check_memory(work)) return;
    std::vector<float> sum(work.elements(), 0.0F);
    for (int i = 0; i < work.plan.algorithm.splits; ++i) {
        for (std::size_t at = 0; at < sum.size(); ++at) {
            sum[at] += load_element(work.operands.workspace, type_of_parts(work),
                                    static_cast<std::size_t>(i) * sum.size() + at);
        }
    }
    finish(work, sum);
}

// An epilogue in a kernel of its own reads the product back.
void run_epilogue_apart(const Work& work) {
    if (!check_memory(work)) return;
    const LtProduct& p = work.product;
    std::vector<float> values;
    values.reserve(work.elements());
    for (int j = 0; j < p.n; ++j) {
        for (int i = 0; i < p.m; ++i) {
            values.push_back(load_element(work.operands.d, p.d.type, index_of(p.d, i, j)));
        }
    }
    run_epilogue(work, values);
    store_result(work, values);
}

}  // namespace

void enqueue_product(cudaStream_t stream, const LtProduct& product, const LtPlan& plan,
                     const LtOperands& operands) {
    const auto work = std::make_shared<const Work>(Work{product, plan, operands});
    enqueue(stream, {cudaGraphNodeTypeKernel, [work] { run_product(*work); }});
    if (splits_into_workspace(plan)) {
        enqueue(stream, {cudaGraphNodeTypeKernel, [work] { add_parts(*work); }});
    }
    if (product.has_epilogue() && !plan.fuses_epilogue) {
        enqueue(stream, {cudaGraphNodeTypeKernel, [work] { run_epilogue_apart(*work); }});
    }
}

}  // namespace emulation
