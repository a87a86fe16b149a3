// What the tests of the emulated cuBLASLt share: matrices, products, and the library's handle.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "emulation_fixture.h"

namespace emulation {

// What is stored, and what is computed.
struct Types {
    const char* name;
    cudaDataType_t in;
    cudaDataType_t out;
    cublasComputeType_t compute;
    double in_error;   // relative, of a factor
    double out_error;  // relative, of the result
};

inline constexpr Types kFp32 = {"fp32", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 0, 0x1p-24};
inline constexpr Types kTf32 = {"tf32",  CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32,
                                0x1p-11, 0x1p-24};
inline constexpr Types kBf16 = {"bf16", CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, 0, 0x1p-8};
inline constexpr Types kBf16ToFp32 = {"bf16 to fp32",     CUDA_R_16BF, CUDA_R_32F,
                                      CUBLAS_COMPUTE_32F, 0,           0x1p-24};

inline std::size_t bytes_of(cudaDataType_t type) {
    return type == CUDA_R_16BF ? 2 : 4;
}

// A column-major matrix on the device, of either type, with a gap below each column.
class Matrix {
  public:
    static constexpr int kGap = 8;

    Matrix(cudaDataType_t type, int rows, int columns, unsigned seed)
        : type_(type), rows_(rows), ld_(rows + kGap), columns_(columns), memory_(bytes()) {
        std::mt19937 generator(seed);
        std::uniform_real_distribution<float> uniform(-1, 1);
        std::vector<unsigned char> raw(bytes());
        for (std::size_t i = 0; i < raw.size() / bytes_of(type); ++i) {
            const float value = uniform(generator);
            if (type == CUDA_R_16BF) {
                const auto half = __float2bfloat16(value);
                std::memcpy(&raw[2 * i], &half, 2);
            } else {
                std::memcpy(&raw[4 * i], &value, 4);
            }
        }
        EXPECT_EQ(cudaMemcpy(memory_.data(), raw.data(), raw.size(), cudaMemcpyHostToDevice),
                  cudaSuccess);
        EXPECT_EQ(cublasLtMatrixLayoutInit(&layout_, type, static_cast<std::uint64_t>(rows),
                                           static_cast<std::uint64_t>(columns), ld_),
                  CUBLAS_STATUS_SUCCESS);
    }

    unsigned char* data() const { return memory_.data(); }
    cublasLtMatrixLayout_t layout() const { return &layout_; }
    // All elements as they are now, [columns][ld].
    std::vector<double> values() const {
        const std::vector<unsigned char> raw = memory_.download();
        std::vector<double> out;
        for (std::size_t i = 0; i < raw.size() / bytes_of(type_); ++i) {
            if (type_ == CUDA_R_16BF) {
                __nv_bfloat16 half;
                std::memcpy(&half, &raw[2 * i], 2);
                out.push_back(static_cast<double>(__bfloat162float(half)));
            } else {
                float value = 0;
                std::memcpy(&value, &raw[4 * i], 4);
                out.push_back(static_cast<double>(value));
            }
        }
        return out;
    }
    std::size_t at(int row, int column) const {
        return static_cast<std::size_t>(column) * static_cast<std::size_t>(ld_) +
               static_cast<std::size_t>(row);
    }
    int rows() const { return rows_; }
    int ld() const { return ld_; }

  private:
    std::size_t bytes() const {
        return static_cast<std::size_t>(ld_) * static_cast<std::size_t>(columns_) * bytes_of(type_);
    }
    cudaDataType_t type_;
    int rows_;
    int ld_;
    int columns_;
    Buffer<unsigned char> memory_;
    mutable cublasLtMatrixLayoutOpaque_t layout_ = {};
};

// D [m, n] of op(A) and op(B).
struct Problem {
    Problem(const Types& of, int rows, int columns, int inner, bool transposes_a = false,
            bool transposes_b = false)
        : types(of),
          m(rows),
          n(columns),
          k(inner),
          trans_a(transposes_a),
          trans_b(transposes_b),
          a(of.in, trans_a ? k : m, trans_a ? m : k, 1),
          b(of.in, trans_b ? n : k, trans_b ? k : n, 2),
          d(of.out, m, n, 3) {
        EXPECT_EQ(cublasLtMatmulDescInit(&operation, of.compute, CUDA_R_32F),
                  CUBLAS_STATUS_SUCCESS);
        set(CUBLASLT_MATMUL_DESC_TRANSA, trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    }

    template <class T>
    void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
        EXPECT_EQ(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value),
                  CUBLAS_STATUS_SUCCESS);
    }

    // alpha·op(A)·op(B) + beta·C in double, [m][n].
    std::vector<std::vector<double>> expected(double alpha, double beta) const {
        const auto of_a = a.values();
        const auto of_b = b.values();
        const auto of_c = d.values();
        std::vector<std::vector<double>> out(static_cast<std::size_t>(m));
        for (int i = 0; i < m; ++i) {
            for (int j = 0; j < n; ++j) {
                double sum = 0;
                for (int l = 0; l < k; ++l) {
                    sum += of_a[trans_a ? a.at(l, i) : a.at(i, l)] *
                           of_b[trans_b ? b.at(j, l) : b.at(l, j)];
                }
                out[static_cast<std::size_t>(i)].push_back(
                    alpha * sum + (beta == 0 ? 0 : beta * of_c[d.at(i, j)]));
            }
        }
        return out;
    }
    // Of a result of such a product: k terms of at most 1 with the errors of two factors, k
    // roundings of a sum of at most k, and the rounding of the result.
    double tolerance() const {
        return k * (2.1 * types.in_error + k * 0x1p-24) + (k + 1) * types.out_error;
    }

    Types types;
    int m, n, k;
    bool trans_a, trans_b;
    Matrix a, b, d;
    cublasLtMatmulDescOpaque_t operation = {};
};

class CublasLt : public EmulationTest {
  protected:
    static constexpr std::size_t kWorkspace = std::size_t{1} << 20;

    void SetUp() override {
        EmulationTest::SetUp();
        ASSERT_EQ(cublasLtCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    }
    void TearDown() override {
        EXPECT_EQ(cublasLtDestroy(handle_), CUBLAS_STATUS_SUCCESS);
        EmulationTest::TearDown();
    }

    struct Wishes {
        std::uint64_t workspace = kWorkspace;
        std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
        std::uint32_t alignment = 256;
    };
    std::vector<cublasLtMatmulHeuristicResult_t> find(Problem& problem, const Wishes& wishes) {
        cublasLtMatmulPreferenceOpaque_t preference = {};
        EXPECT_EQ(cublasLtMatmulPreferenceInit(&preference), CUBLAS_STATUS_SUCCESS);
        const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
            EXPECT_EQ(
                cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
                CUBLAS_STATUS_SUCCESS);
        };
        set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, wishes.workspace);
        set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, wishes.reductions);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, wishes.alignment);
        std::vector<cublasLtMatmulHeuristicResult_t> results(16);
        int found = 0;
        const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
            handle_, &problem.operation, problem.a.layout(), problem.b.layout(), problem.d.layout(),
            problem.d.layout(), &preference, 16, results.data(), &found);
        EXPECT_EQ(status == CUBLAS_STATUS_SUCCESS, found > 0);
        results.resize(static_cast<std::size_t>(found));
        return results;
    }
    std::vector<cublasLtMatmulHeuristicResult_t> find(Problem& problem) {
        return find(problem, Wishes());
    }
    template <class T>
    static T config(const cublasLtMatmulAlgo_t& algorithm,
                    cublasLtMatmulAlgoConfigAttributes_t attribute) {
        T value{};
        EXPECT_EQ(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value,
                                                       nullptr),
                  CUBLAS_STATUS_SUCCESS);
        return value;
    }

    cublasStatus_t multiply(Problem& problem, const cublasLtMatmulAlgo_t& algorithm,
                            cudaStream_t on, void* workspace, std::size_t size = kWorkspace,
                            float alpha = 1, float beta = 0) const {
        return cublasLtMatmul(handle_, &problem.operation, &alpha, problem.a.data(),
                              problem.a.layout(), problem.b.data(), problem.b.layout(), &beta,
                              problem.d.data(), problem.d.layout(), problem.d.data(),
                              problem.d.layout(), &algorithm, workspace, size, on);
    }

    std::size_t nodes_of(Problem& problem, const cublasLtMatmulAlgo_t& algorithm,
                         void* workspace) const {
        EXPECT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal), cudaSuccess);
        EXPECT_EQ(multiply(problem, algorithm, stream(), workspace), CUBLAS_STATUS_SUCCESS);
        cudaGraph_t graph = nullptr;
        EXPECT_EQ(cudaStreamEndCapture(stream(), &graph), cudaSuccess);
        std::size_t count = 0;
        EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &count), cudaSuccess);
        EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
        return count;
    }

    cublasLtHandle_t handle_ = nullptr;
};

}  // namespace emulation
