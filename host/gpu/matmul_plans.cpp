#include "host/gpu/matmul_plans.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "host/error.h"

namespace vae::gpu {
namespace {

constexpr int kMostCandidates = 32;
constexpr int kBitsAlignment = 16;  // bytes, of relu_bits_pitch()
constexpr std::uint32_t kReductions =
    CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

cudaDataType_t type_of_factors(MatmulTypes types) {
    return types == MatmulTypes::fp32 || types == MatmulTypes::tf32 ? CUDA_R_32F : CUDA_R_16BF;
}

cudaDataType_t type_of_result(MatmulTypes types) {
    return types == MatmulTypes::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// A row-major matrix as its transpose.
cublasLtMatrixLayoutOpaque_t layout_of(cudaDataType_t type, int rows, int columns) {
    cublasLtMatrixLayoutOpaque_t layout = {};
    cublas_check(cublasLtMatrixLayoutInit(&layout, type, static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), columns),
                 "cublasLtMatrixLayoutInit");
    return layout;
}

template <class T>
void set(cublasLtMatmulDescOpaque_t& operation, cublasLtMatmulDescAttributes_t attribute, T value) {
    cublas_check(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value),
                 "cublasLtMatmulDescSetAttribute");
}

cublasLtEpilogue_t epilogue_of(MatmulEpilogue epilogue) {
    switch (epilogue) {
        case MatmulEpilogue::none:
            break;
        case MatmulEpilogue::bias_relu:
            return CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
        case MatmulEpilogue::relu_backward:
            return CUBLASLT_EPILOGUE_DRELU;
        case MatmulEpilogue::bias_gradient:
            return CUBLASLT_EPILOGUE_BGRADB;
    }
    return CUBLASLT_EPILOGUE_DEFAULT;
}

// Whoever looks for an algorithm reads the alignment of an address that is not used.
const void* aligned_address(int alignment) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    return reinterpret_cast<const void*>(static_cast<std::uintptr_t>(alignment));
}

template <class T>
void prefer(cublasLtMatmulPreferenceOpaque_t& preference,
            cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    cublas_check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
                 "cublasLtMatmulPreferenceSetAttribute");
}

// 0 where the algorithm has no such number.
template <class T>
T number_of(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
    T value = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value, nullptr);
    return status == CUBLAS_STATUS_SUCCESS ? value : T(0);
}

// Whether the algorithm adds all terms of the product in FP32 and in a fixed order: at once, or in
// parts that a kernel behind it adds. Without that kernel a split is a sum that its parts round,
// one after the other, to the type of the result. A number of parts below 0 is documented nowhere.
bool adds_well(const MatmulProduct& product, const cublasLtMatmulAlgo_t& algorithm) {
    const auto reduction =
        number_of<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    const auto splits = number_of<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    if (splits == 0 || splits == 1) return (reduction & ~kReductions) == 0;
    return splits > 1 && reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE &&
           !may_lose_terms(product.terms(), splits);
}

template <class T>
bool configure(cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute,
               T value) {
    return cublasLtMatmulAlgoConfigSetAttribute(&algorithm, attribute, &value, sizeof value) ==
           CUBLAS_STATUS_SUCCESS;
}

// Makes of an algorithm the one of the same kernel that adds all of a sum at once; false where it
// has none.
bool remove_split(cublasLtMatmulAlgo_t& algorithm) {
    return configure(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, std::int32_t{1}) &&
           configure(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                     std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
}

}  // namespace

void cublas_check(cublasStatus_t status, const char* what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw RunError(fmt::format("{}: {} ({})", what, cublasLtGetStatusString(status),
                               static_cast<int>(status)));
}

bool is_refusal(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
}

MatmulProblem::MatmulProblem(const MatmulProduct& product) {
    const cudaDataType_t factors = type_of_factors(product.types);
    const auto weight = layout_of(factors, product.out, product.in);
    const auto input = layout_of(factors, product.rows, product.in);
    const auto output = layout_of(factors, product.rows, product.out);
    const cudaDataType_t result = type_of_result(product.types);
    const cublasComputeType_t compute =
        product.types == MatmulTypes::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublas_check(cublasLtMatmulDescInit(&operation, compute, CUDA_R_32F), "cublasLtMatmulDescInit");
    switch (product.kind) {
        case MatmulKind::forward:
            set(operation, CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{CUBLAS_OP_T});
            a = weight;
            b = input;
            d = layout_of(result, product.rows, product.out);
            break;
        case MatmulKind::backward_input:
            a = weight;
            b = output;
            d = layout_of(result, product.rows, product.in);
            break;
        case MatmulKind::backward_weight:
            set(operation, CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{CUBLAS_OP_T});
            a = input;
            b = output;
            d = layout_of(result, product.out, product.in);
            break;
    }
    if (product.epilogue == MatmulEpilogue::none) return;
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{epilogue_of(product.epilogue)});
    if (has_bits(product.epilogue)) {
        const int width = product.kind == MatmulKind::forward ? product.out : product.in;
        set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
            std::int64_t{8} * relu_bits_pitch(width));
    }
    // A bias of the result's type is aligned to it, also where the factors, of a smaller one, are
    // not. Bits are aligned as any algorithm wants.
    const int size = result == CUDA_R_32F ? 4 : 2;
    set_side(
        has_bias(product.epilogue) ? aligned_address(std::max(product.alignment, size)) : nullptr,
        has_bits(product.epilogue) ? aligned_address(kBitsAlignment) : nullptr);
}

void MatmulProblem::set_side(const void* bias, const void* bits) {
    if (bias != nullptr) set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    if (bits != nullptr) set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, bits);
}

MatmulPlans::MatmulPlans() : device_(current_tuned_device()), cache_(device_) {
    cublas_check(cublasLtCreate(&handle_), "cublasLtCreate");
}

MatmulPlans::~MatmulPlans() {
    (void)cublasLtDestroy(handle_);
}

bool MatmulPlans::is_usable(const MatmulProduct& product, MatmulProblem& problem,
                            const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result = {};
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle_, &problem.operation, &problem.a, &problem.b, &problem.d,
                                &problem.d, &algorithm, &result);
    return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kMatmulWorkspaceBytes &&
           adds_well(product, algorithm);
}

std::vector<cublasLtMatmulAlgo_t> MatmulPlans::candidates(const MatmulProduct& product) const {
    MatmulProblem problem(product);
    return candidates(product, problem, product.epilogue != MatmulEpilogue::none);
}

std::vector<cublasLtMatmulAlgo_t> MatmulPlans::candidates(const MatmulProduct& product,
                                                          MatmulProblem& problem,
                                                          bool has_epilogue) const {
    cublasLtMatmulPreferenceOpaque_t preference = {};
    cublas_check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
           std::uint64_t{kMatmulWorkspaceBytes});
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
        prefer(preference, attribute, static_cast<std::uint32_t>(product.alignment));
    }
    std::vector<cublasLtMatmulHeuristicResult_t> results(kMostCandidates);
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, &problem.operation, &problem.a, &problem.b, &problem.d, &problem.d, &preference,
        kMostCandidates, results.data(), &found);
    const bool is_absent =
        has_epilogue ? is_refusal(status) : status == CUBLAS_STATUS_NOT_SUPPORTED;
    if (is_absent) return {};
    cublas_check(status, "cublasLtMatmulAlgoGetHeuristic");
    results.resize(static_cast<std::size_t>(found));
    std::erase_if(results,
                  [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (const cublasLtMatmulHeuristicResult_t& result : results) {
        if (adds_well(product, result.algo)) algorithms.push_back(result.algo);
    }
    if (!algorithms.empty()) return algorithms;
    for (cublasLtMatmulHeuristicResult_t& result : results) {
        if (!remove_split(result.algo) || !is_usable(product, problem, result.algo)) continue;
        algorithms.push_back(result.algo);
    }
    return algorithms;
}

std::unique_ptr<MatmulPlan> MatmulPlans::make(const MatmulProduct& product) const {
    auto plan = std::make_unique<MatmulPlan>(MatmulPlan{.problem = MatmulProblem(product)});
    if (const MeasuredAlgorithm* measured = cache_.find(product); measured != nullptr) {
        static_assert(sizeof plan->algorithm == sizeof measured->words);
        std::memcpy(&plan->algorithm, measured->words.data(), sizeof plan->algorithm);
        if (is_usable(product, plan->problem, plan->algorithm)) return plan;
    }
    const std::vector<cublasLtMatmulAlgo_t> algorithms = candidates(product);
    if (algorithms.empty()) return nullptr;
    plan->algorithm = algorithms.front();
    return plan;
}

MatmulPlan* MatmulPlans::find(const MatmulProduct& product) {
    auto found = plans_.find(product);
    if (found == plans_.end()) found = plans_.emplace(product, make(product)).first;
    return found->second.get();
}

MatmulPlan& MatmulPlans::of(const MatmulProduct& product) {
    MatmulPlan* const plan = find(product);
    if (plan == nullptr) {
        throw RunError(
            fmt::format("cuBLASLt has no algorithm for a product of {} x {} x {} in {} that adds "
                        "in FP32 and in a fixed order",
                        product.rows, product.in, product.out, name_of(product.types)));
    }
    plan->is_taken = true;
    return *plan;
}

std::vector<MatmulProduct> MatmulPlans::products() const {
    std::vector<MatmulProduct> all;
    for (const auto& [product, plan] : plans_) {
        if (plan != nullptr && plan->is_taken) all.push_back(product);
    }
    return all;
}

// github.com/facebookexperimental/triton/pull/2767 has products of ones that come back short by
// what is left behind the last whole block, of cuBLAS 12.8.5 and 13.1.1 on Hopper and Blackwell,
// where whole blocks divide evenly among more parts than there are terms left. An algorithm does
// not say how large its blocks are: these are its kernels' 128 bytes of 8-bit to 32-bit factors.
bool may_lose_terms(int terms, int splits) {
    constexpr std::array kBlocks = {32, 64, 128};
    return std::any_of(kBlocks.begin(), kBlocks.end(), [&](int block) {
        const int left = terms % block;
        return left != 0 && terms / block % splits == 0 && splits > left;
    });
}

int least_kernels(const cublasLtMatmulAlgo_t& algorithm) {
    return number_of<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1 ? 2 : 1;
}

std::string describe(const cublasLtMatmulAlgo_t& algorithm) {
    const auto splits = number_of<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    const std::string text = fmt::format(
        "{} tile {} stages {}", number_of<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID),
        number_of<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
        number_of<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID));
    return splits > 1 ? fmt::format("{} split {}", text, splits) : text;
}

}  // namespace vae::gpu
