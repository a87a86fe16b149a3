// Epilogues of matrix products against plain loops in double, and the kernels that they take.
#include <algorithm>
#include <cmath>

#include "cublaslt_fixture.h"

namespace emulation {
namespace {

// With a bias and a mask of 128 bits a column where it has them.
void set_epilogue_of(Problem& problem, cublasLtEpilogue_t epilogue, void* bias, void* mask) {
    problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    problem.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, mask);
    problem.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{128});
}

TEST_F(CublasLt, ForwardEpiloguesAddABiasAndKeepAMask) {
    const Buffer<char> workspace(kWorkspace);
    for (const Types& types : {kFp32, kBf16}) {
        Problem problem(types, 40, 8, 16);
        const Matrix bias(types.out, 40, 1, 7);
        const Buffer<unsigned char> mask(std::size_t{128} / 8 * 8);
        const auto product = problem.expected(1, 0);
        const auto of_bias = bias.values();
        set_epilogue_of(problem, CUBLASLT_EPILOGUE_RELU_AUX_BIAS, bias.data(), mask.data());
        const auto algorithm = find(problem, {.reductions = 0})[0].algo;
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

// What the mask has of 0 and of NaN is nobody's promise; the values are 0.
TEST_F(CublasLt, BitsOfZeroAndNanDependOnTheOrderOfTurns) {
    const Buffer<char> workspace(kWorkspace);
    Problem problem(kFp32, 8, 8, 8);
    ASSERT_EQ(cudaMemsetAsync(problem.a.data(), 0, sizeof(float) * 16 * 8, stream()), cudaSuccess);
    const float nan = std::nanf("");
    const Buffer<float> bias(std::vector<float>{0, nan, 1, -1, 0, nan, 1, -1});
    const Buffer<unsigned char> mask(std::size_t{128} / 8 * 8);
    set_epilogue_of(problem, CUBLASLT_EPILOGUE_RELU_AUX_BIAS, bias.data(), mask.data());
    const auto algorithm = find(problem)[0].algo;
    for (const auto& [order, bits] :
         {std::pair(Order::ascending, 0x44), std::pair(Order::descending, 0x77)}) {
        set_order(order);
        ASSERT_EQ(multiply(problem, algorithm, stream(), workspace.data()), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(synchronize(), cudaSuccess);
        for (int i = 0; i < 8; ++i) {
            EXPECT_EQ(problem.d.values()[problem.d.at(i, 0)], i % 4 == 2 ? 1 : 0);
        }
        EXPECT_EQ(mask.download()[0], bits);
    }
}

class CublasLtBackward : public CublasLt, public testing::WithParamInterface<bool> {};

// With the sums of the result, and without.
TEST_P(CublasLtBackward, EpiloguesMaskAndSum) {
    const Buffer<char> workspace(kWorkspace);
    const bool has_sums = GetParam();
    for (const Types& types : {kFp32, kBf16}) {
        Problem problem(types, 40, 8, 16);
        const Matrix sums(types.out, 40, 1, 7);
        std::vector<unsigned char> bits(128 / 8 * 8);
        for (std::size_t i = 0; i < bits.size(); ++i) {
            bits[i] = static_cast<unsigned char>(i * 37 + 11);
        }
        const Buffer<unsigned char> mask(bits);
        const auto product = problem.expected(1, 0);
        const auto before = sums.values();
        set_epilogue_of(problem, has_sums ? CUBLASLT_EPILOGUE_DRELU_BGRAD : CUBLASLT_EPILOGUE_DRELU,
                        has_sums ? sums.data() : nullptr, mask.data());
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
            if (has_sums) {
                EXPECT_NEAR(of_sums[static_cast<std::size_t>(i)], sum, 10 * problem.tolerance());
            }
        }
        EXPECT_EQ(of_sums == before, !has_sums);
    }
}

INSTANTIATE_TEST_SUITE_P(Sums, CublasLtBackward, testing::Bool());

TEST_F(CublasLt, TheGradientOfABiasIsTheSumOfAFactor) {
    const Buffer<char> workspace(kWorkspace);
    for (const auto& [types, is_of_a] :
         {std::pair(kFp32, true), std::pair(kFp32, false), std::pair(kBf16ToFp32, false)}) {
        for (const bool is_other_transposed : {true, false}) {
            Problem problem(types, 24, 32, 40, !is_of_a && is_other_transposed,
                            !is_of_a || is_other_transposed);
            const int size = is_of_a ? 24 : 32;
            const Matrix sums(CUDA_R_32F, size, 1, 7);
            set_epilogue_of(problem, is_of_a ? CUBLASLT_EPILOGUE_BGRADA : CUBLASLT_EPILOGUE_BGRADB,
                            sums.data(), nullptr);
            const auto product = problem.expected(1, 0);
            ASSERT_EQ(multiply(problem, find(problem)[0].algo, stream(), workspace.data()),
                      CUBLAS_STATUS_SUCCESS);
            ASSERT_EQ(synchronize(), cudaSuccess);
            EXPECT_NEAR(problem.d.values()[problem.d.at(5, 6)], product[5][6], problem.tolerance());
            const Matrix& factor = is_of_a ? problem.a : problem.b;
            const auto values = factor.values();
            for (int i = 0; i < size; ++i) {
                double sum = 0;
                for (int k = 0; k < 40; ++k) sum += values[factor.at(i, k)];
                EXPECT_NEAR(sums.values()[static_cast<std::size_t>(i)], sum, 1e-4);
            }
        }
    }
}

// That these shapes go together is not what is refused.
TEST_F(CublasLt, TheGradientOfABiasNeedsItsFactorAsItIsStored) {
    const Buffer<float> side(1024);
    for (const bool is_of_a : {true, false}) {
        for (const bool is_transposed : {true, false}) {
            Problem problem(kFp32, 32, 32, 32, is_transposed, is_transposed);
            set_epilogue_of(problem, is_of_a ? CUBLASLT_EPILOGUE_BGRADA : CUBLASLT_EPILOGUE_BGRADB,
                            side.data(), nullptr);
            EXPECT_EQ(find(problem).empty(), is_of_a == is_transposed);
        }
    }
}

// In bf16 an epilogue is a part of the product, or of what adds a split sum; else, or where a test
// says so, it is one kernel more.
TEST_F(CublasLt, AnEpilogueIsAKernelOfItsOwnOrNot) {
    const Buffer<char> workspace(kWorkspace);
    const Buffer<float> side(1024);
    for (const auto epilogue :
         {CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_DRELU, CUBLASLT_EPILOGUE_BGRADB}) {
        for (const Types& types : {kFp32, kTf32, kBf16, kBf16ToFp32}) {
            Problem problem(types, 40, 8, 32, false, epilogue == CUBLASLT_EPILOGUE_BGRADB);
            set_epilogue_of(problem, epilogue,
                            epilogue == CUBLASLT_EPILOGUE_DRELU ? nullptr : side.data(),
                            epilogue == CUBLASLT_EPILOGUE_BGRADB ? nullptr : side.data());
            const bool by_type = types.in == CUDA_R_16BF;
            for (const auto& [way, is_fused] :
                 {std::pair(EpilogueWay::by_type, by_type), std::pair(EpilogueWay::fused, true),
                  std::pair(EpilogueWay::apart, false)}) {
                set_epilogue(epilogue, way);
                for (const auto reduction :
                     {CUBLASLT_REDUCTION_SCHEME_NONE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}) {
                    const auto found =
                        find(problem, {.reductions = static_cast<std::uint32_t>(reduction)});
                    ASSERT_FALSE(found.empty());
                    const auto& algorithm = found.back().algo;
                    const bool is_split =
                        config<int>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1;
                    EXPECT_EQ(nodes_of(problem, algorithm, workspace.data()),
                              (is_split ? 2U : 1U) + (is_fused ? 0U : 1U));
                }
            }
            set_epilogue(epilogue, EpilogueWay::none);
            EXPECT_TRUE(find(problem).empty());
            reset();
            EXPECT_FALSE(find(problem).empty()) << "what was set is forgotten";
        }
    }
}

TEST_F(CublasLt, AnEpilogueNeedsWhatIsBesideTheResult) {
    const Buffer<char> workspace(kWorkspace);
    const Buffer<float> side(1024);
    Problem problem(kBf16ToFp32, 40, 8, 32, false, true);
    const auto expect = [&](cublasLtEpilogue_t epilogue, void* bias, void* mask, bool is_fine) {
        SCOPED_TRACE(testing::Message() << epilogue << ' ' << bias << ' ' << mask);
        auto* const fine_bias = epilogue == CUBLASLT_EPILOGUE_DRELU ? nullptr : side.data();
        auto* const fine_mask =
            epilogue == CUBLASLT_EPILOGUE_BGRADB || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS
                ? nullptr
                : side.data();
        set_epilogue_of(problem, epilogue, fine_bias, fine_mask);
        const auto found = find(problem);
        ASSERT_FALSE(found.empty());
        set_epilogue_of(problem, epilogue, bias, mask);
        EXPECT_EQ(find(problem).empty(), !is_fine) << "the heuristic looks at addresses too";
        EXPECT_EQ(multiply(problem, found[0].algo, stream(), workspace.data()),
                  is_fine ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE);
    };
    auto* const unaligned = reinterpret_cast<unsigned char*>(side.data()) + 2;
    expect(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, side.data(), side.data(), true);
    expect(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, nullptr, side.data(), false);
    expect(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, unaligned, side.data(), false);
    expect(CUBLASLT_EPILOGUE_RELU_AUX_BIAS, side.data(), nullptr, false);
    expect(CUBLASLT_EPILOGUE_RELU_BIAS, side.data(), nullptr, true);
    expect(CUBLASLT_EPILOGUE_RELU_BIAS, side.data(), side.data(), false);
    expect(CUBLASLT_EPILOGUE_DRELU, nullptr, side.data(), true);
    expect(CUBLASLT_EPILOGUE_DRELU, nullptr, side.data() + 1, false);
    expect(CUBLASLT_EPILOGUE_DRELU, side.data(), side.data(), false);
    expect(CUBLASLT_EPILOGUE_BGRADB, nullptr, nullptr, false);
    expect(CUBLASLT_EPILOGUE_BGRADB, side.data(), side.data(), false);
    expect(CUBLASLT_EPILOGUE_BGRADB, side.data(), nullptr, true);
    // Of an FP32 result the gradient of a bias is FP32, whatever the factors are.
    problem.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_16BF});
    EXPECT_TRUE(find(problem).empty());
    problem.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_32F});
    EXPECT_FALSE(find(problem).empty());
    ASSERT_EQ(synchronize(), cudaSuccess);
}

}  // namespace
}  // namespace emulation
