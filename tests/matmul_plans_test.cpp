// Which of cuBLASLt's algorithms compute a product, measured or not, and what is kept of them. Runs
// on a GPU, or under the emulation.
#include "host/gpu/matmul_plans.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "host/files.h"
#include "host/gpu/matmul_tuning.h"
#include "host/gpu/product_operands.h"
#include "tests/matmul_fixture.h"

namespace vae::gpu {
namespace {

class MatmulPlansTest : public MatmulTest {
  protected:
    std::filesystem::path file() const { return home_.path() / "vae" / "matmul-plans.json"; }
};

TEST_F(MatmulPlansTest, SaysWhatWasAskedFor) {
    const Matmul matmul(Precision::tf32);
    Layer<float, float> layer({8, 16, 24}, stream_);
    layer.forward(matmul, lane_);
    layer.forward(matmul, lane_);
    layer.backward(matmul, lane_);
    const auto products = matmul.products();
    ASSERT_EQ(products.size(), 3U);
    EXPECT_EQ(products[0], (MatmulProduct{.kind = MatmulKind::forward,
                                          .types = MatmulTypes::tf32,
                                          .rows = 8,
                                          .in = 16,
                                          .out = 24,
                                          .alignment = 16}));
    stream_.synchronize();
}

// Copies are alike, and what is written to one leaves the others as they are.
TEST_F(MatmulPlansTest, MeasuredProductsHaveMatricesBeyondTheCache) {
    constexpr std::size_t kTerms = std::size_t{40} * 24 * 56;  // of all sums
    MatmulPlans plans;
    for (const MatmulTypes types :
         {MatmulTypes::fp32, MatmulTypes::bf16, MatmulTypes::bf16_to_fp32}) {
        for (const MatmulKind kind :
             {MatmulKind::forward, MatmulKind::backward_input, MatmulKind::backward_weight}) {
            SCOPED_TRACE(::testing::Message() << name_of(kind) << " in " << name_of(types));
            const MatmulProduct product = {
                .kind = kind, .types = types, .rows = 40, .in = 24, .out = 56};
            EXPECT_EQ(ProductOperands(product, stream_).copies(), 1U);
            ProductOperands operands(product, stream_, ProductOperands::Copies::beyond_cache);
            ASSERT_GE(operands.copies(), 2U);
            const auto result = [&](std::size_t copy) {
                std::vector<unsigned char> bytes(kTerms /
                                                 static_cast<std::size_t>(product.terms()) *
                                                 (types == MatmulTypes::bf16 ? 2 : 4));
                stream_.synchronize();
                EXPECT_EQ(cudaMemcpy(bytes.data(), operands.d(copy), bytes.size(),
                                     cudaMemcpyDeviceToHost),
                          cudaSuccess);
                return bytes;
            };
            const auto before = result(0);
            MatmulPlan& plan = plans.of(product);
            for (std::size_t copy = 0; copy < operands.copies(); ++copy) {
                operands.multiply(plans.handle(), lane_, plan, copy);
            }
            EXPECT_NE(result(0), before);
            for (std::size_t copy = 1; copy < operands.copies(); ++copy) {
                ASSERT_EQ(result(copy), result(0)) << "copy " << copy;
            }
        }
    }
}

// Of factors of ones each sum is the number of its terms, and exact: an algorithm that leaves some
// out says how many.
class OnesTest : public MatmulPlansTest {
  protected:
    static constexpr int kMost = 5000;
    static constexpr int kRows = 48;  // of what is not summed over
    static constexpr int kColumns = 64;

    void SetUp() override {
        MatmulPlansTest::SetUp();
        const std::vector<float> floats(std::size_t{kMost} * kColumns, 1.0F);
        const std::vector<Bf16> halves(floats.size(), Bf16(1.0F));
        floats_ = {floats.size(), "ones"};
        floats_.upload(floats, stream_);
        halves_ = {halves.size(), "ones"};
        halves_.upload(halves, stream_);
    }

    static MatmulProduct product_of(MatmulKind kind, MatmulTypes types, int terms) {
        MatmulProduct product = {.kind = kind, .types = types};
        const bool sums_rows = kind == MatmulKind::backward_weight;
        product.rows = sums_rows ? terms : kRows;
        product.in = kind == MatmulKind::forward ? terms : kColumns;
        product.out = kind == MatmulKind::backward_input ? terms : sums_rows ? kRows : kColumns;
        return product;
    }

    void expect_sums(MatmulPlans& plans, MatmulPlan& plan, const MatmulProduct& product) {
        std::vector<float> sums(std::size_t{kRows} * kColumns, std::nanf(""));
        d_.upload(sums, stream_);
        const bool is_float = product.types != MatmulTypes::bf16_to_fp32;
        const void* const ones = is_float ? static_cast<const void*>(floats_.data())
                                          : static_cast<const void*>(halves_.data());
        run_plan(plans.handle(), lane_, plan, ones, ones, d_.data(), {});
        d_.download(sums, stream_);
        const auto right = static_cast<float>(product.terms());
        EXPECT_EQ(sums, std::vector<float>(sums.size(), right)) << describe(plan.algorithm);
    }

    DeviceArray<float> floats_;
    DeviceArray<Bf16> halves_;
    DeviceArray<float> d_{std::size_t{kRows} * kColumns, "sums of ones"};
};

TEST_F(OnesTest, EachCandidateAddsAllTerms) {
    MatmulPlans plans;
    for (const MatmulTypes types :
         {MatmulTypes::fp32, MatmulTypes::tf32, MatmulTypes::bf16_to_fp32}) {
        for (const MatmulKind kind :
             {MatmulKind::forward, MatmulKind::backward_input, MatmulKind::backward_weight}) {
            for (const int terms : {96, 129, 258, 784, 1000, 1032, 2050, 4097, kMost}) {
                const MatmulProduct product = product_of(kind, types, terms);
                SCOPED_TRACE(::testing::Message()
                             << name_of(kind) << " of " << terms << " terms in " << name_of(types));
                const auto candidates = plans.candidates(product);
                EXPECT_FALSE(candidates.empty());
                for (const cublasLtMatmulAlgo_t& algorithm : candidates) {
                    MatmulPlan plan = {.problem = MatmulProblem(product), .algorithm = algorithm};
                    expect_sums(plans, plan, product);
                }
            }
        }
    }
}

// What is good for some rows may be none for others, whatever the file says.
TEST_F(OnesTest, WhatIsKeptAddsAllTermsToo) {
    const TunedDevice device = MatmulPlans().device();
    const auto product_of_rows = [](int rows) {
        return product_of(MatmulKind::backward_weight, MatmulTypes::bf16_to_fp32, rows);
    };
    const MatmulProduct product = product_of_rows(129);
    for (const cublasLtMatmulAlgo_t& algorithm : MatmulPlans().candidates(product_of_rows(128))) {
        MeasuredAlgorithm measured;
        std::memcpy(measured.words.data(), &algorithm, sizeof algorithm);
        ASSERT_TRUE(save_matmul_algorithms(device, {{product, measured}}).has_value());
        MatmulPlans plans;
        expect_sums(plans, plans.of(product), product);
    }
}

TEST(MatmulSplits, LoseTermsWhereBlocksDivideEvenlyAmongMorePartsThanAreLeft) {
    EXPECT_TRUE(may_lose_terms(129, 2)) << "2 blocks of 64, and 1 term";
    EXPECT_TRUE(may_lose_terms(5000, 13)) << "78 of 64, and 8; 39 of 128, and 8";
    EXPECT_TRUE(may_lose_terms(1000, 31)) << "31 of 32, and 8";
    EXPECT_FALSE(may_lose_terms(130, 2)) << "as many parts as terms are left";
    EXPECT_FALSE(may_lose_terms(129, 3)) << "the parts are uneven";
    EXPECT_FALSE(may_lose_terms(5000, 4));
    for (const int splits : {2, 3, 4, 8, 16, 32}) EXPECT_FALSE(may_lose_terms(4096, splits));
}

TEST_F(MatmulPlansTest, MeasuresAllCandidatesAndKeepsTheFastest) {
    const std::vector<MatmulProduct> products = {
        {.kind = MatmulKind::forward, .types = MatmulTypes::fp32, .rows = 8, .in = 64, .out = 8},
        {.kind = MatmulKind::backward_input,
         .types = MatmulTypes::tf32,
         .rows = 8,
         .in = 16,
         .out = 32},
        {.kind = MatmulKind::backward_weight,
         .types = MatmulTypes::bf16_to_fp32,
         .rows = 40,
         .in = 16,
         .out = 8},
        {.types = MatmulTypes::bf16,
         .epilogue = MatmulEpilogue::bias_relu,
         .rows = 16,
         .in = 16,
         .out = 24}};
    const TuningReport report = tune_products(products);
    EXPECT_EQ(report.file, file().string());
    ASSERT_EQ(report.products.size(), 4U);
    for (const TunedProduct& one : report.products) {
        EXPECT_GT(one.candidates, 1);
        EXPECT_GT(one.microseconds, 0);
        EXPECT_GT(one.teraflops, 0);
        EXPECT_GE(one.nodes, 1);
        EXPECT_GE(one.gain, 0.99);
        EXPECT_FALSE(one.algorithm.empty());
    }
    const MatmulPlans plans;
    const MatmulCache cache(plans.device());
    for (const MatmulProduct& product : products) {
        ASSERT_NE(cache.find(product), nullptr);
        EXPECT_GT(cache.find(product)->microseconds, 0);
    }
    MatmulProduct other = products[0];
    ++other.rows;
    EXPECT_EQ(cache.find(other), nullptr);
}

// Bits are those of the kept algorithm, whichever it is.
TEST_F(MatmulPlansTest, TakesWhatIsKept) {
    const MatmulProduct product = {
        .kind = MatmulKind::forward, .types = MatmulTypes::fp32, .rows = 8, .in = 640, .out = 8};
    const TunedDevice device = MatmulPlans().device();
    const auto candidates = MatmulPlans().candidates(product);
    ASSERT_GT(candidates.size(), 1U);
    for (const cublasLtMatmulAlgo_t& candidate : candidates) {
        MeasuredAlgorithm measured;
        std::memcpy(measured.words.data(), &candidate, sizeof candidate);
        ASSERT_TRUE(save_matmul_algorithms(device, {{product, measured}}).has_value());
        MatmulPlans plans;
        EXPECT_EQ(describe(plans.of(product).algorithm), describe(candidate));
    }
}

TEST_F(MatmulPlansTest, AFileThatIsNotUnderstoodDoesNoHarm) {
    const MatmulProduct product = {.rows = 8, .in = 16, .out = 24};
    const std::string first = describe(MatmulPlans().of(product).algorithm);
    const auto expect_first = [&] {
        EXPECT_EQ(describe(MatmulPlans().of(product).algorithm), first);
    };
    ASSERT_TRUE(save_matmul_algorithms(MatmulPlans().device(), {}).has_value());
    for (const char* text :
         {"", "no json", "[]", "{}", "{\"algorithms\": 3}", "{\"algorithms\": [3, null, {}]}"}) {
        write_file_atomically(file(), std::string_view(text));
        expect_first();
    }
    // An algorithm that no library knows.
    MeasuredAlgorithm unknown;
    unknown.words.fill(0x1234567);
    ASSERT_TRUE(save_matmul_algorithms(MatmulPlans().device(), {{product, unknown}}).has_value());
    ASSERT_NE(MatmulCache(MatmulPlans().device()).find(product), nullptr);
    expect_first();
}

TEST_F(MatmulPlansTest, KeepsWhatOthersMeasured) {
    const MatmulProduct product = {.rows = 8, .in = 16, .out = 24};
    MatmulProduct other = product;
    other.types = MatmulTypes::tf32;
    const TunedDevice ours = {.gpu = "one", .capability = "9.0", .cublaslt = 130000};
    TunedDevice newer = ours;
    newer.cublaslt = 130100;
    MeasuredAlgorithm measured;
    for (std::uint64_t i = 0; i < 3; ++i) {
        measured.words[0] = ~i;
        measured.nodes = static_cast<int>(i);
        const TunedDevice& device = i == 1 ? newer : ours;
        ASSERT_TRUE(save_matmul_algorithms(device, {{product, measured}}).has_value());
    }
    ASSERT_TRUE(save_matmul_algorithms(ours, {{other, measured}}).has_value());
    EXPECT_EQ(MatmulCache(ours).find(product)->nodes, 2);
    EXPECT_EQ(MatmulCache(ours).find(product)->words[0], ~std::uint64_t{2});
    EXPECT_EQ(MatmulCache(newer).find(product)->nodes, 1);
    EXPECT_NE(MatmulCache(ours).find(other), nullptr);
    EXPECT_EQ(MatmulCache(newer).find(other), nullptr);
    const auto kept = nlohmann::json::parse(read_file(file()));
    EXPECT_EQ(kept.at("algorithms").size(), 3U);
}

TEST_F(MatmulPlansTest, WithoutAHomeNothingIsKept) {
    const char* home = std::getenv("HOME");
    const std::string before = home == nullptr ? "" : home;
    ASSERT_EQ(setenv("XDG_CACHE_HOME", "not/absolute", 1), 0);
    ASSERT_EQ(setenv("HOME", "/somewhere", 1), 0);
    EXPECT_EQ(tuning_file_path(), "/somewhere/.cache/vae/matmul-plans.json");
    ASSERT_EQ(unsetenv("HOME"), 0);
    EXPECT_EQ(tuning_file_path(), std::nullopt);
    EXPECT_EQ(save_matmul_algorithms({}, {}), std::nullopt);
    EXPECT_EQ(MatmulCache({}).find({}), nullptr);
    if (home != nullptr) {
        ASSERT_EQ(setenv("HOME", before.c_str(), 1), 0);
    }
}

}  // namespace
}  // namespace vae::gpu
