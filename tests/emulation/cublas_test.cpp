// Matrix products against plain loops in double.
#include <cublas_v2.h>

#include <cmath>
#include <random>
#include <tuple>

#include "emulation_fixture.h"

namespace emulation {
namespace {

std::vector<float> random_values(std::size_t size, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> values(size);
    for (float& value : values) value = uniform(generator);
    return values;
}

class Cublas : public EmulationTest {
  protected:
    void SetUp() override {
        EmulationTest::SetUp();
        ASSERT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(cublasSetStream(handle_, stream()), CUBLAS_STATUS_SUCCESS);
    }
    void TearDown() override {
        EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS);
        EmulationTest::TearDown();
    }

    cublasHandle_t handle_ = nullptr;
};

struct Shape {
    int m, n, k;
};

// Element (row, column) of op(matrix), column-major.
double element(const std::vector<float>& matrix, cublasOperation_t operation, int ld, int row,
               int column) {
    const int at = operation == CUBLAS_OP_N ? row + column * ld : column + row * ld;
    return matrix[static_cast<std::size_t>(at)];
}

TEST_F(Cublas, MultipliesAsLoopsDo) {
    constexpr int kPad = 3;
    for (const Shape shape : {Shape{1, 1, 1}, Shape{5, 7, 3}, Shape{33, 17, 64}}) {
        for (const auto trans_a : {CUBLAS_OP_N, CUBLAS_OP_T}) {
            for (const auto trans_b : {CUBLAS_OP_N, CUBLAS_OP_T}) {
                const auto [m, n, k] = shape;
                const int lda = (trans_a == CUBLAS_OP_N ? m : k) + kPad;
                const int ldb = (trans_b == CUBLAS_OP_N ? k : n) + kPad;
                const int ldc = m + kPad;
                const auto a = random_values(static_cast<std::size_t>(lda) * 100, 1);
                const auto b = random_values(static_cast<std::size_t>(ldb) * 100, 2);
                const auto c = random_values(static_cast<std::size_t>(ldc) * 100, 3);
                const Buffer<float> on_a(a);
                const Buffer<float> on_b(b);
                const Buffer<float> on_c(c);
                const float alpha = 1.5f;
                const float beta = -0.5f;
                ASSERT_EQ(cublasSgemm(handle_, trans_a, trans_b, m, n, k, &alpha, on_a.data(), lda,
                                      on_b.data(), ldb, &beta, on_c.data(), ldc),
                          CUBLAS_STATUS_SUCCESS);
                ASSERT_EQ(synchronize(), cudaSuccess);
                const std::vector<float> result = on_c.download();
                for (int i = 0; i < m; ++i) {
                    for (int j = 0; j < n; ++j) {
                        double sum = 0;
                        for (int l = 0; l < k; ++l) {
                            sum += element(a, trans_a, lda, i, l) * element(b, trans_b, ldb, l, j);
                        }
                        const double expected =
                            alpha * sum + beta * element(c, CUBLAS_OP_N, ldc, i, j);
                        // k products of at most 1, each rounded to 2^-24, and the two factors.
                        EXPECT_NEAR(element(result, CUBLAS_OP_N, ldc, i, j), expected,
                                    (2.0 * k + 4) * 0x1p-24);
                    }
                }
                EXPECT_EQ(result[static_cast<std::size_t>(m)], c[static_cast<std::size_t>(m)])
                    << "what lies between the columns is left alone";
            }
        }
    }
}

TEST_F(Cublas, ZeroBetaDoesNotReadTheResult) {
    const Buffer<float> a(std::vector{2.0f});
    const Buffer<float> b(std::vector{3.0f});
    const Buffer<float> poison(1);
    const float one = 1;
    const float zero = 0;
    ASSERT_EQ(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), 1, b.data(),
                          1, &zero, poison.data(), 1),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_TRUE(std::isnan(poison.download()[0])) << "products wait for their turn";
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_EQ(poison.download()[0], 6.0f);
}

TEST_F(Cublas, MultipliesBatches) {
    const Buffer<float> a(std::vector{1.0f, 2.0f, 3.0f});
    const Buffer<float> b(std::vector{10.0f});
    const Buffer<float> c(3);
    const float one = 1;
    const float zero = 0;
    ASSERT_EQ(cublasSgemmStridedBatched(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(),
                                        1, 1, b.data(), 1, 0, &zero, c.data(), 1, 1, 3),
              CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_EQ(c.download(), (std::vector{10.0f, 20.0f, 30.0f}));
}

TEST_F(Cublas, ChecksArguments) {
    const Buffer<float> matrix(16);
    const float one = 1;
    const auto product = [&](int m, int n, int k, int lda, int ldb, int ldc) {
        return cublasSgemm(handle_, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, matrix.data(), lda,
                           matrix.data(), ldb, &one, matrix.data(), ldc);
    };
    EXPECT_EQ(product(2, 2, 3, 3, 3, 2), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(product(2, 2, 3, 2, 3, 2), CUBLAS_STATUS_INVALID_VALUE) << "lda < k";
    EXPECT_EQ(product(2, 2, 3, 3, 2, 2), CUBLAS_STATUS_INVALID_VALUE) << "ldb < k";
    EXPECT_EQ(product(2, 2, 3, 3, 3, 1), CUBLAS_STATUS_INVALID_VALUE) << "ldc < m";
    EXPECT_EQ(product(-1, 2, 3, 3, 3, 2), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(product(0, 2, 3, 3, 3, 1), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasSgemm(nullptr, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, matrix.data(), 1,
                          matrix.data(), 1, &one, matrix.data(), 1),
              CUBLAS_STATUS_NOT_INITIALIZED);
    EXPECT_EQ(cublasGemmEx(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, matrix.data(),
                           CUDA_R_16BF, 1, matrix.data(), CUDA_R_16BF, 1, &one, matrix.data(),
                           CUDA_R_32F, 1, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(cublasSetWorkspace(handle_, matrix.data(), 65), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(cublasSetWorkspace(handle_, matrix.data(), 64), CUBLAS_STATUS_SUCCESS);
}

TEST_F(Cublas, SettingAStreamTakesTheWorkspaceBack) {
    const Buffer<float> matrix(std::vector<float>(64, 1));
    const float one = 1;
    const auto multiply = [&] {
        EXPECT_EQ(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, matrix.data(), 1,
                              matrix.data(), 1, &one, matrix.data(), 1),
                  CUBLAS_STATUS_SUCCESS);
        return products_in_own_workspace();
    };
    EXPECT_EQ(multiply(), 1u);
    ASSERT_EQ(cublasSetWorkspace(handle_, matrix.data(), matrix.bytes()), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(multiply(), 1u);
    ASSERT_EQ(cublasSetStream(handle_, stream()), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(multiply(), 2u);
}

TEST_F(Cublas, AMatrixBeyondItsAllocationIsAnIllegalAddress) {
    const Buffer<float> matrix(15);
    const float one = 1;
    ASSERT_EQ(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, matrix.data(), 4,
                          matrix.data(), 4, &one, matrix.data(), 4),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(synchronize(), cudaErrorIllegalAddress);
    reset();
}

TEST_F(Cublas, FailsWhenAsked) {
    fail_call("cublasSgemm_v2", 1, CUBLAS_STATUS_EXECUTION_FAILED);
    const float one = 1;
    EXPECT_EQ(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 0, 0, 0, &one, nullptr, 1, nullptr, 1,
                          &one, nullptr, 1),
              CUBLAS_STATUS_EXECUTION_FAILED);
    EXPECT_STREQ(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED),
                 "CUBLAS_STATUS_EXECUTION_FAILED");
    EXPECT_EQ(live().cublas_handles, 1u);
}

}  // namespace
}  // namespace emulation
