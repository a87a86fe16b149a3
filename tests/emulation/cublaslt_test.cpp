// Matrix products against plain loops in double, and what cuBLASLt refuses.
#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "cublaslt_fixture.h"

namespace emulation {
namespace {

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

// Cutting makes all factors smaller, so that errors add up where rounding's cancel.
TEST_F(CublasLt, Tf32IsRoundedOrCut) {
    const Buffer<char> workspace(kWorkspace);
    const auto value_of = [&](Tf32 how) {
        set_tf32(how);
        Problem problem(kTf32, 8, 8, 1);
        const float one_and_more = 1 + 0x1.8p-11F;  // nearer to 1 + 2^-10 than to 1
        const std::vector<float> values(std::size_t{16} * 8, one_and_more);
        for (const Matrix* matrix : {&problem.a, &problem.b}) {
            EXPECT_EQ(cudaMemcpy(matrix->data(), values.data(),
                                 sizeof(float) * matrix->values().size(), cudaMemcpyHostToDevice),
                      cudaSuccess);
        }
        EXPECT_EQ(multiply(problem, find(problem)[0].algo, stream(), workspace.data()),
                  CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(synchronize(), cudaSuccess);
        return problem.d.values()[0];
    };
    EXPECT_EQ(value_of(Tf32::cut), 1);
    EXPECT_NEAR(value_of(Tf32::round), (1 + 0x1p-10) * (1 + 0x1p-10), 0x1p-22);
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
        EXPECT_LE(config<int>(each.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 1);
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

// Adding in place has no order that anybody promises, nor has a number of parts that nobody tells.
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
        const bool is_told = config<int>(each.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 0;
        EXPECT_EQ(bits(Order::ascending) == bits(Order::descending), is_told && !in_place);
    }
}

// One kernel whose bits are the same in each order, but whose sum is rounded to the result's type
// after each part. It is the first that is proposed for 16-bit matrices that are not aligned.
TEST_F(CublasLt, ASerialSumIsRoundedInBetween) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kBf16, 32, 32, 96);
    const auto serial = find(problem, {.alignment = 2})[0].algo;
    EXPECT_EQ(config<int>(serial, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 3);
    EXPECT_EQ(config<std::uint32_t>(serial, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME),
              std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
    EXPECT_EQ(nodes_of(problem, serial, workspace.data()), 1U);
    const auto expected = problem.expected(1, 0);
    const auto error_of = [&](const cublasLtMatmulAlgo_t& algorithm, Order order) {
        set_order(order);
        EXPECT_EQ(multiply(problem, algorithm, stream(), workspace.data()), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(synchronize(), cudaSuccess);
        const auto result = problem.d.values();
        double sum = 0;
        for (int i = 0; i < 32; ++i) {
            for (int j = 0; j < 32; ++j) {
                const double right =
                    expected[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
                sum += std::abs(result[problem.d.at(i, j)] - right);
            }
        }
        return sum;
    };
    const double error = error_of(serial, Order::ascending);
    EXPECT_EQ(error, error_of(serial, Order::descending));
    // Without its split it is as good as any.
    cublasLtMatmulAlgo_t whole = serial;
    const std::int32_t one = 1;
    ASSERT_EQ(cublasLtMatmulAlgoConfigSetAttribute(&whole, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &one,
                                                   sizeof one),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_GT(error, 1.2 * error_of(whole, Order::ascending));
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
