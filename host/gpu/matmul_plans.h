// How cuBLASLt computes each product of a network: which of its algorithms, for which shapes. Plans
// are made at a product's first use and kept.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "host/gpu/matmul_cache.h"
#include "host/gpu/matmul_product.h"

namespace vae::gpu {

// Of each stream that computes products; what NVIDIA recommends for Hopper.
inline constexpr std::size_t kMatmulWorkspaceBytes = std::size_t{32} << 20;

// Throws RunError naming `what` unless the status is a success.
void cublas_check(cublasStatus_t status, const char* what);

// Whether the status says that cuBLASLt has no such product, and not that something failed. Which
// of the two statuses it is for an epilogue that some types or shapes do not have is not
// documented.
bool is_refusal(cublasStatus_t status);

// A product as cuBLASLt is asked for it. cuBLASLt is column-major: a row-major [a, b] matrix is its
// [b, a] matrix, so that it computes the transpose of each product of matmul.h.
struct MatmulProblem {
    // Throws RunError when cuBLASLt refuses.
    explicit MatmulProblem(const MatmulProduct& product);

    cublasLtMatmulDescOpaque_t operation = {};
    cublasLtMatrixLayoutOpaque_t a = {};
    cublasLtMatrixLayoutOpaque_t b = {};
    cublasLtMatrixLayoutOpaque_t d = {};

    // Where an epilogue's bias, or its gradient, and bits are; null for what it has not.
    void set_side(const void* bias, const void* bits);
};

struct MatmulPlan {
    MatmulProblem problem;
    cublasLtMatmulAlgo_t algorithm = {};
    bool is_taken = false;  // and not only looked at
};

// Same plans, same bits: of the ways to add a sum that is split among blocks only those are taken
// that add in a fixed order, a separate kernel over parts in the workspace, in float. Adding in
// place is in the order in which blocks finish, as far as is documented; adding one after the other
// within the product's kernel rounds to the type of the result in between. So what a product
// computes depends on the GPU, the version of cuBLASLt and the plan alone; plans come from the
// cache's file or from cuBLASLt's own heuristic, never from a measurement while training.
//
// Nor is a split taken that is known to lose the end of the sum: see may_lose_terms().
class MatmulPlans {
  public:
    // For the current device, with the plans of its cache. Throws RunError when cuBLASLt fails.
    MatmulPlans();
    ~MatmulPlans();
    MatmulPlans(const MatmulPlans&) = delete;
    MatmulPlans& operator=(const MatmulPlans&) = delete;
    MatmulPlans(MatmulPlans&&) = delete;
    MatmulPlans& operator=(MatmulPlans&&) = delete;

    cublasLtHandle_t handle() const { return handle_; }
    const TunedDevice& device() const { return device_; }

    // The cache's, if it has one that this device and library take; else the heuristic's first.
    // Throws RunError when there is none.
    MatmulPlan& of(const MatmulProduct& product);
    // The plan that of() would take; null where it would throw.
    MatmulPlan* find(const MatmulProduct& product);
    // All that can be taken, the heuristic's first one first; where it would split the sum of each
    // in a way that cannot be taken, those without their splits.
    std::vector<cublasLtMatmulAlgo_t> candidates(const MatmulProduct& product) const;
    // The same of a problem that is the product's but for its epilogue.
    std::vector<cublasLtMatmulAlgo_t> candidates(const MatmulProduct& product,
                                                 MatmulProblem& problem, bool has_epilogue) const;
    // Those whose plan of() gave.
    std::vector<MatmulProduct> products() const;

  private:
    // The plan of find().
    std::unique_ptr<MatmulPlan> make(const MatmulProduct& product) const;
    // Whether an algorithm from elsewhere can be taken for the product, with our workspace.
    bool is_usable(const MatmulProduct& product, MatmulProblem& problem,
                   const cublasLtMatmulAlgo_t& algorithm) const;

    TunedDevice device_;
    MatmulCache cache_;
    cublasLtHandle_t handle_ = nullptr;
    std::map<MatmulProduct, std::unique_ptr<MatmulPlan>> plans_;  // null: there is none
};

// Whether a sum of so many terms in so many parts is one of those of which cuBLASLt is known to add
// no more than whole blocks.
bool may_lose_terms(int terms, int splits);

// Kernels of an algorithm without what an epilogue may cost: one, and one more that adds the parts
// of a split sum.
int least_kernels(const cublasLtMatmulAlgo_t& algorithm);

// "66 tile 20 stages 35 split 4", of the library's own numbers.
std::string describe(const cublasLtMatmulAlgo_t& algorithm);

}  // namespace vae::gpu
