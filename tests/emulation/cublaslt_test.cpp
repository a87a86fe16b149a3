// Matrix products against plain loops in double, their epilogues, and what cuBLASLt refuses.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>

#include "emulation_fixture.h"

namespace emulation {
namespace {

// What is stored, and what is computed.
struct Types {
    const char* name;
    cudaDataType_t in;
    cudaDataType_t out;
    cublasComputeType_t compute;
    double in_error;   // relative, of a factor
    double out_error;  // relative, of the result
};

constexpr Types kFp32 = {"fp32", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 0, 0x1p-24};
constexpr Types kTf32 = {"tf32",  CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32,
                         0x1p-11, 0x1p-24};
constexpr Types kBf16 = {"bf16", CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, 0, 0x1p-8};
constexpr Types kBf16ToFp32 = {"bf16 to fp32",     CUDA_R_16BF, CUDA_R_32F,
                               CUBLAS_COMPUTE_32F, 0,           0x1p-24};

std::size_t bytes_of(cudaDataType_t type) {
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

TEST_F(CublasLt, MultipliesAsLoopsDoInEachWay) {
    const Buffer<char> workspace(kWorkspace);
    for (const Types& types : {kFp32, kTf32, kBf16, kBf16ToFp32}) {
        for (const auto& [m, n, k] : {std::array{8, 16, 1}, std::array{40, 24, 72}}) {
            for (const int transposed : {0, 1, 2, 3}) {
                Problem problem(types, m, n, k, (transposed & 1) != 0, (transposed & 2) != 0);
                const auto algorithms = find(problem);
                EXPECT_GE(algorithms.size(), k > 8 ? 5U : 1U);
                for (const auto& each : algorithms) {
                    SCOPED_TRACE(testing::Message()
                                 << types.name << ' ' << m << ' ' << n << ' ' << k << " transposed "
                                 << transposed << " algorithm "
                                 << config<int>(each.algo, CUBLASLT_ALGO_CONFIG_ID));
                    const auto expected = problem.expected(1.5, -0.5);
                    const auto before = problem.d.values();
                    ASSERT_EQ(multiply(problem, each.algo, stream(), workspace.data(),
                                       each.workspaceSize, 1.5F, -0.5F),
                              CUBLAS_STATUS_SUCCESS);
                    ASSERT_EQ(synchronize(), cudaSuccess);
                    const auto result = problem.d.values();
                    for (int i = 0; i < m; ++i) {
                        for (int j = 0; j < n; ++j) {
                            ASSERT_NEAR(
                                result[problem.d.at(i, j)],
                                expected[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)],
                                2 * problem.tolerance());
                        }
                    }
                    ASSERT_EQ(result[problem.d.at(m, 0)], before[problem.d.at(m, 0)])
                        << "what lies between the columns is left alone";
                }
            }
        }
    }
}

TEST_F(CublasLt, PrecisionsDiffer) {
    const Buffer<char> workspace(kWorkspace);
    const auto error_of = [&](const Types& types) {
        Problem problem(types, 32, 32, 64);
        const auto expected = problem.expected(1, 0);
        EXPECT_EQ(multiply(problem, find(problem)[0].algo, stream(), workspace.data()),
                  CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(synchronize(), cudaSuccess);
        const auto result = problem.d.values();
        double largest = 0;
        for (int i = 0; i < 32; ++i) {
            for (int j = 0; j < 32; ++j) {
                const double right =
                    expected[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
                largest = std::max(largest, std::abs(result[problem.d.at(i, j)] - right));
            }
        }
        return largest;
    };
    EXPECT_LT(error_of(kFp32), 1e-5);
    EXPECT_GT(error_of(kTf32), 1e-4);
    EXPECT_LT(error_of(kBf16ToFp32), 1e-5) << "its factors are exact";
    EXPECT_GT(error_of(kBf16), 1e-3);
}

TEST_F(CublasLt, ZeroBetaDoesNotReadTheResult) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kFp32, 8, 8, 8);
    ASSERT_EQ(cudaMemsetAsync(problem.d.data(), 0xff, 4 * 16 * 8, stream()), cudaSuccess);
    ASSERT_EQ(synchronize(), cudaSuccess);
    ASSERT_EQ(multiply(problem, find(problem)[0].algo, stream(), workspace.data()),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_TRUE(std::isnan(problem.d.values()[0])) << "products wait for their turn";
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_FALSE(std::isnan(problem.d.values()[0]));
}

TEST_F(CublasLt, HeuristicsKeepToWhatIsAllowed) {
    Problem problem(kTf32, 40, 24, 72);
    std::set<int> ids;
    std::set<std::uint32_t> reductions;
    for (const auto& each : find(problem)) {
        EXPECT_LE(each.workspaceSize, kWorkspace);
        ids.insert(config<int>(each.algo, CUBLASLT_ALGO_CONFIG_ID));
        reductions.insert(config<std::uint32_t>(each.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME));
    }
    EXPECT_EQ(ids.size(), find(problem).size());
    EXPECT_TRUE(reductions.contains(CUBLASLT_REDUCTION_SCHEME_INPLACE));
    EXPECT_TRUE(reductions.contains(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    EXPECT_FALSE(reductions.contains(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE));

    for (const auto& each : find(problem, {.workspace = 0})) EXPECT_EQ(each.workspaceSize, 0U);
    EXPECT_EQ(find(problem, {.workspace = std::uint64_t{64} << 20}).size(),
              find(problem).size() + 1);
    for (const auto& each : find(problem, {.reductions = CUBLASLT_REDUCTION_SCHEME_NONE})) {
        EXPECT_EQ(config<int>(each.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 1);
    }
    const auto unaligned = find(problem, {.alignment = 4});
    EXPECT_GE(unaligned.size(), 1U);
    EXPECT_LT(unaligned.size(), find(problem).size());
    // With a leading dimension of 39 + 8 floats.
    Problem odd(kTf32, 39, 24, 72);
    EXPECT_EQ(find(odd).size(), unaligned.size());
    Problem long_sum(kFp32, 8, 8, 64);
    EXPECT_GT(config<int>(find(long_sum)[0].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 1);
}

TEST_F(CublasLt, ASplitSumIsTwoNodesAndUsesItsWorkspace) {
    const Buffer<char> workspace(kWorkspace);
    Problem first(kFp32, 16, 16, 128);
    Problem second(kFp32, 16, 16, 128, true);
    const auto split = find(first, {.reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE})[0].algo;
    const auto of_second =
        find(second, {.reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE})[0].algo;
    EXPECT_EQ(config<int>(split, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 4);
    EXPECT_EQ(nodes_of(first, split, workspace.data()), 2U);

    // Two streams that share a workspace find each other's parts in it, in some order.
    cudaStream_t other = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    const auto expected = first.expected(1, 0);
    bool is_wrong = false;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        set_order(Order::random, seed);
        ASSERT_EQ(multiply(first, split, stream(), workspace.data()), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(multiply(second, of_second, other, workspace.data()), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        is_wrong = is_wrong || std::abs(first.d.values()[0] - expected[0][0]) > 1e-3;
    }
    EXPECT_TRUE(is_wrong);
    EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

// Adding in place has no order that anybody promises.
TEST_F(CublasLt, BitsOfASumInPlaceDependOnTheOrderOfTurns) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kFp32, 32, 32, 129);
    for (const auto& each : find(problem)) {
        const auto bits = [&](Order order) {
            set_order(order);
            EXPECT_EQ(multiply(problem, each.algo, stream(), workspace.data()),
                      CUBLAS_STATUS_SUCCESS);
            EXPECT_EQ(synchronize(), cudaSuccess);
            return problem.d.values();
        };
        const bool in_place =
            config<std::uint32_t>(each.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) ==
            CUBLASLT_REDUCTION_SCHEME_INPLACE;
        EXPECT_EQ(bits(Order::ascending) == bits(Order::descending), !in_place);
    }
}

TEST_F(CublasLt, ForwardEpiloguesAddABiasAndKeepAMask) {
    const Buffer<char> workspace(kWorkspace);
    for (const Types& types : {kFp32, kBf16}) {
        Problem problem(types, 40, 8, 16);
        const Matrix bias(types.out, 40, 1, 7);
        const Buffer<unsigned char> mask(std::size_t{128} / 8 * 8);
        const auto product = problem.expected(1, 0);
        const auto of_bias = bias.values();
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU_AUX_BIAS);
        problem.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(bias.data()));
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(mask.data()));
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{128});
        const auto algorithm = find(problem, {.reductions = 0})[0].algo;
        EXPECT_EQ(nodes_of(problem, algorithm, workspace.data()), types.in == CUDA_R_16BF ? 1U : 2U)
            << "only BF16 is really fused";
        ASSERT_EQ(multiply(problem, algorithm, stream(), workspace.data()), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(synchronize(), cudaSuccess);
        const auto result = problem.d.values();
        const auto bits = mask.download();
        for (int i = 0; i < 40; ++i) {
            for (int j = 0; j < 8; ++j) {
                const double value =
                    product[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] +
                    of_bias[static_cast<std::size_t>(i)];
                EXPECT_NEAR(result[problem.d.at(i, j)], std::max(value, 0.0),
                            2 * problem.tolerance());
                const int at = j * 128 + i;
                const bool bit = ((bits[static_cast<std::size_t>(at / 8)] >> (at % 8)) & 1) != 0;
                if (std::abs(value) > 1e-4) {
                    EXPECT_EQ(bit, value > 0);
                }
            }
        }
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{64});
        EXPECT_EQ(multiply(problem, algorithm, stream(), workspace.data()),
                  CUBLAS_STATUS_INVALID_VALUE);
    }
}

TEST_F(CublasLt, BackwardEpiloguesMaskAndSum) {
    const Buffer<char> workspace(kWorkspace);
    for (const Types& types : {kFp32, kBf16}) {
        Problem problem(types, 40, 8, 16);
        const Matrix sums(types.out, 40, 1, 7);
        std::vector<unsigned char> bits(128 / 8 * 8);
        for (std::size_t i = 0; i < bits.size(); ++i) {
            bits[i] = static_cast<unsigned char>(i * 37 + 11);
        }
        const Buffer<unsigned char> mask(bits);
        const auto product = problem.expected(1, 0);
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DRELU_BGRAD);
        problem.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(sums.data()));
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(mask.data()));
        problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{128});
        ASSERT_EQ(multiply(problem, find(problem)[0].algo, stream(), workspace.data()),
                  CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(synchronize(), cudaSuccess);
        const auto result = problem.d.values();
        const auto of_sums = sums.values();
        for (int i = 0; i < 40; ++i) {
            double sum = 0;
            for (int j = 0; j < 8; ++j) {
                const int at = j * 128 + i;
                const bool bit = ((bits[static_cast<std::size_t>(at / 8)] >> (at % 8)) & 1) != 0;
                const double value =
                    bit ? product[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] : 0.0;
                EXPECT_NEAR(result[problem.d.at(i, j)], value, 2 * problem.tolerance());
                sum += value;
            }
            EXPECT_NEAR(of_sums[static_cast<std::size_t>(i)], sum, 10 * problem.tolerance());
        }
    }
}

TEST_F(CublasLt, TheGradientOfABiasIsTheSumOfAFactor) {
    const Buffer<char> workspace(kWorkspace);
    for (const bool is_of_a : {true, false}) {
        for (const bool is_transposed : {true, false}) {
            Problem problem(kFp32, 24, 32, 40, is_transposed, is_transposed);
            const int size = is_of_a ? 24 : 32;
            const Matrix sums(CUDA_R_32F, size, 1, 7);
            problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE,
                        is_of_a ? CUBLASLT_EPILOGUE_BGRADA : CUBLASLT_EPILOGUE_BGRADB);
            problem.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(sums.data()));
            const auto product = problem.expected(1, 0);
            ASSERT_EQ(multiply(problem, find(problem)[0].algo, stream(), workspace.data()),
                      CUBLAS_STATUS_SUCCESS);
            ASSERT_EQ(synchronize(), cudaSuccess);
            EXPECT_NEAR(problem.d.values()[problem.d.at(5, 6)], product[5][6], problem.tolerance());
            const Matrix& factor = is_of_a ? problem.a : problem.b;
            const auto values = factor.values();
            for (int i = 0; i < size; ++i) {
                double sum = 0;
                for (int k = 0; k < 40; ++k) {
                    sum += values[is_of_a == is_transposed ? factor.at(k, i) : factor.at(i, k)];
                }
                EXPECT_NEAR(sums.values()[static_cast<std::size_t>(i)], sum, 1e-4);
            }
        }
    }
}

TEST_F(CublasLt, RefusesWhatItDoesNotKnowAndWhatDoesNotFit) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kTf32, 32, 32, 64);
    const auto algorithm = find(problem)[0].algo;
    const auto status = [&] { return multiply(problem, algorithm, stream(), workspace.data()); };
    EXPECT_EQ(status(), CUBLAS_STATUS_SUCCESS);
    problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_GELU);
    EXPECT_EQ(status(), CUBLAS_STATUS_NOT_SUPPORTED);
    problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
    problem.set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T);
    EXPECT_EQ(status(), CUBLAS_STATUS_INVALID_VALUE) << "B is 64 by 32";
    problem.set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
    problem.set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_64F);
    EXPECT_EQ(status(), CUBLAS_STATUS_NOT_SUPPORTED);
    problem.set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_32F);
    EXPECT_EQ(status(), CUBLAS_STATUS_NOT_SUPPORTED) << "the algorithm is one for TF32";
    problem.set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_32F_FAST_TF32);
    EXPECT_EQ(status(), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(multiply(problem, algorithm, nullptr, workspace.data()),
              CUBLAS_STATUS_EXECUTION_FAILED);
    EXPECT_EQ(multiply(problem, algorithm, stream(), workspace.data() + 1, 64),
              CUBLAS_STATUS_INVALID_VALUE);
    char pageable[64];
    EXPECT_EQ(multiply(problem, algorithm, stream(), pageable, 64), CUBLAS_STATUS_INVALID_VALUE);
    const auto split =
        find(problem, {.reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}).back().algo;
    Problem splits(kTf32, 32, 32, 64);
    for (const auto& each : find(splits)) {
        if (each.workspaceSize == 0) continue;
        EXPECT_EQ(multiply(splits, each.algo, stream(), workspace.data(), each.workspaceSize - 1),
                  CUBLAS_STATUS_INVALID_VALUE);
    }
    cublasLtMatmulHeuristicResult_t result = {};
    EXPECT_EQ(
        cublasLtMatmulAlgoCheck(handle_, &splits.operation, splits.a.layout(), splits.b.layout(),
                                splits.d.layout(), splits.d.layout(), &split, &result),
        CUBLAS_STATUS_SUCCESS);
    const cublasLtMatmulAlgo_t foreign = {{1, 2, 3, 4, 5, 6, 7, 8}};
    EXPECT_NE(
        cublasLtMatmulAlgoCheck(handle_, &splits.operation, splits.a.layout(), splits.b.layout(),
                                splits.d.layout(), splits.d.layout(), &foreign, &result),
        CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(&splits.operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                             &result, 8),
              CUBLAS_STATUS_INVALID_VALUE);
    ASSERT_EQ(synchronize(), cudaSuccess);
}

TEST_F(CublasLt, AnUnalignedMatrixNeedsAnAlgorithmForIt) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kTf32, 32, 32, 64);
    const auto multiply_at = [&](const cublasLtMatmulAlgo_t& algorithm) {
        const float one = 1;
        const float zero = 0;
        return cublasLtMatmul(handle_, &problem.operation, &one, problem.a.data() + 4,
                              problem.a.layout(), problem.b.data(), problem.b.layout(), &zero,
                              problem.d.data(), problem.d.layout(), problem.d.data(),
                              problem.d.layout(), &algorithm, workspace.data(), kWorkspace,
                              stream());
    };
    EXPECT_EQ(multiply_at(find(problem)[0].algo), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(multiply_at(find(problem, {.alignment = 4})[0].algo), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(synchronize(), cudaSuccess);
}

TEST_F(CublasLt, AMatrixBeyondItsAllocationIsAnIllegalAddress) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kFp32, 16, 16, 16);
    const float one = 1;
    const float zero = 0;
    const auto algorithm = find(problem)[0].algo;
    ASSERT_EQ(
        cublasLtMatmul(handle_, &problem.operation, &one, problem.a.data() + 256,
                       problem.a.layout(), problem.b.data(), problem.b.layout(), &zero,
                       problem.d.data(), problem.d.layout(), problem.d.data(), problem.d.layout(),
                       &algorithm, workspace.data(), kWorkspace, stream()),
        CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(synchronize(), cudaErrorIllegalAddress);
    reset();
}

TEST_F(CublasLt, FailsWhenAsked) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kFp32, 16, 16, 16);
    const auto algorithm = find(problem)[0].algo;
    fail_call("cublasLtMatmul", 1, CUBLAS_STATUS_EXECUTION_FAILED);
    EXPECT_EQ(multiply(problem, algorithm, stream(), workspace.data()),
              CUBLAS_STATUS_EXECUTION_FAILED);
    EXPECT_STREQ(cublasLtGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED),
                 "CUBLAS_STATUS_EXECUTION_FAILED");
    EXPECT_EQ(live().cublas_handles, 1U);
}

}  // namespace
}  // namespace emulation
