// Matrix products of a dense layer against plain loops in double, and which algorithms are taken.
// Runs on a GPU, or under the emulation.
#include "host/gpu/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "host/files.h"
#include "host/gpu/matmul_tuning.h"
#include "tests/temporary_folder.h"

namespace vae::gpu {
namespace {

using Bf16 = __nv_bfloat16;

// With a home of its own, where nobody has measured anything.
class MatmulTest : public ::testing::Test {
  protected:
    void SetUp() override {
        int count = 0;
        ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
        ASSERT_EQ(setenv("XDG_CACHE_HOME", home_.path().c_str(), 1), 0);
    }
    void TearDown() override { ASSERT_EQ(unsetenv("XDG_CACHE_HOME"), 0); }

    std::filesystem::path file() const { return home_.path() / "vae" / "matmul-plans.json"; }

    template <class T>
    static std::vector<T> random_values(std::size_t size, unsigned seed) {
        std::mt19937 generator(seed);
        std::uniform_real_distribution<float> uniform(-1, 1);
        std::vector<T> values(size);
        for (T& value : values) value = T(uniform(generator));
        return values;
    }

    vae::testing::TemporaryFolder home_;
    const Stream stream_;
    const MatmulLane lane_{stream_};
};

struct Sizes {
    int rows, in, out;
};

// A layer's three products, on the device.
template <class In, class Out>
struct Layer {
    // `shift` moves each matrix by so many elements off its alignment.
    Layer(const Sizes& of, const Stream& stream, std::size_t shift = 0) : sizes(of), offset(shift) {
        x = make<In>(sizes.rows, sizes.in, 1);
        w = make<In>(sizes.out, sizes.in, 2);
        d_y = make<In>(sizes.rows, sizes.out, 3);
        on_x = upload(x, stream);
        on_w = upload(w, stream);
        on_d_y = upload(d_y, stream);
        y = {elements(sizes.rows, sizes.out) + shift, "y"};
        d_x = {elements(sizes.rows, sizes.in) + shift, "d_x"};
        d_w = {elements(sizes.out, sizes.in) + shift, "d_w"};
    }

    static std::size_t elements(int rows, int columns) {
        return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
    }
    template <class T>
    std::vector<T> make(int rows, int columns, unsigned seed) const {
        std::mt19937 generator(seed);
        std::uniform_real_distribution<float> uniform(-1, 1);
        std::vector<T> values(elements(rows, columns) + offset);
        for (T& value : values) value = T(uniform(generator));
        return values;
    }
    static DeviceArray<In> upload(const std::vector<In>& values, const Stream& stream) {
        DeviceArray<In> array(values.size(), "a factor");
        array.upload(values, stream);
        return array;
    }

    void forward(const Matmul& matmul, const MatmulLane& lane) {
        matmul.forward(lane, on_x.data() + offset, on_w.data() + offset, sizes.rows, sizes.in,
                       sizes.out, y.data() + offset);
    }
    void backward(const Matmul& matmul, const MatmulLane& lane, bool accumulate = false) {
        matmul.backward_input(lane, on_d_y.data() + offset, on_w.data() + offset, sizes.rows,
                              sizes.in, sizes.out, d_x.data() + offset);
        matmul.backward_weight(lane, on_d_y.data() + offset, on_x.data() + offset, sizes.rows,
                               sizes.in, sizes.out, d_w.data() + offset, accumulate);
    }

    // Expects result[i, j] to be factor times the sum over k of left(i, k)·right(k, j).
    template <class Left, class Right>
    void expect(const DeviceArray<Out>& array, int rows, int columns, int inner, const Left& left,
                const Right& right, double in_error, double out_error, double factor,
                const Stream& stream) const {
        std::vector<Out> result(array.size());
        array.download(result, stream);
        for (int i = 0; i < rows; ++i) {
            for (int j = 0; j < columns; ++j) {
                double sum = 0;
                double most = 0;
                for (int k = 0; k < inner; ++k) {
                    const double term = static_cast<double>(static_cast<float>(left(i, k))) *
                                        static_cast<double>(static_cast<float>(right(k, j)));
                    sum += term;
                    most += std::abs(term);
                }
                const double got = static_cast<double>(static_cast<float>(
                    result[offset + elements(i, columns) + static_cast<std::size_t>(j)]));
                // Each term has the errors of two factors and of the sums that it is in, the result
                // its own rounding.
                ASSERT_NEAR(
                    got, factor * sum,
                    factor * most * (2.1 * in_error + (inner + 2) * 0x1p-24 + out_error) + 1e-30)
                    << i << ' ' << j;
            }
        }
    }

    void expect_all(double in_error, double out_error, const Stream& stream,
                    double weight_factor = 1) const {
        const auto at = [this](const std::vector<In>& values, int columns, int i, int j) {
            return values[offset + elements(i, columns) + static_cast<std::size_t>(j)];
        };
        const auto& [rows, in, out] = sizes;
        const int ins = in;
        const int outs = out;
        expect(
            y, rows, out, in, [&](int i, int k) { return at(x, ins, i, k); },
            [&](int k, int j) { return at(w, ins, j, k); }, in_error, out_error, 1, stream);
        expect(
            d_x, rows, in, out, [&](int i, int k) { return at(d_y, outs, i, k); },
            [&](int k, int j) { return at(w, ins, k, j); }, in_error, out_error, 1, stream);
        expect(
            d_w, out, in, rows, [&](int i, int k) { return at(d_y, outs, k, i); },
            [&](int k, int j) { return at(x, ins, k, j); }, in_error, out_error, weight_factor,
            stream);
    }

    Sizes sizes;
    std::size_t offset;
    std::vector<In> x, w, d_y;
    DeviceArray<In> on_x, on_w, on_d_y;
    DeviceArray<Out> y, d_x, d_w;
};

constexpr double kTf32Error = 0x1p-10;  // at most: whether it rounds or cuts is not documented
constexpr double kBf16Rounding = 0x1p-8;

const std::vector<Sizes>& all_sizes() {
    static const std::vector<Sizes> sizes = {{1, 1, 1},     {3, 5, 7},    {8, 16, 8},
                                             {16, 784, 24}, {128, 20, 8}, {33, 31, 40},
                                             {200, 8, 16},  {4, 12, 300}};
    return sizes;
}

template <class In, class Out>
void expect_products(Precision precision, double in_error, double out_error, const Stream& stream,
                     const MatmulLane& lane) {
    const Matmul matmul(precision);
    for (const Sizes& sizes : all_sizes()) {
        for (const std::size_t shift : {0U, 1U, 3U}) {
            SCOPED_TRACE(::testing::Message() << sizes.rows << ' ' << sizes.in << ' ' << sizes.out
                                              << " shifted by " << shift);
            Layer<In, Out> layer(sizes, stream, shift);
            layer.forward(matmul, lane);
            layer.backward(matmul, lane);
            layer.expect_all(in_error, out_error, stream);
        }
    }
}

TEST_F(MatmulTest, Fp32) {
    expect_products<float, float>(Precision::fp32, 0, 0x1p-24, stream_, lane_);
}
TEST_F(MatmulTest, Tf32) {
    expect_products<float, float>(Precision::tf32, kTf32Error, 0x1p-24, stream_, lane_);
}
TEST_F(MatmulTest, Bf16) {
    expect_products<Bf16, Bf16>(Precision::bf16, 0, kBf16Rounding, stream_, lane_);
}
TEST_F(MatmulTest, Bf16ToFp32) {
    expect_products<Bf16, float>(Precision::bf16, 0, 0x1p-24, stream_, lane_);
}

TEST_F(MatmulTest, AddsToTheGradientOfAWeightIfAsked) {
    const Matmul matmul(Precision::fp32);
    Layer<float, float> layer({17, 12, 9}, stream_);
    layer.forward(matmul, lane_);
    layer.backward(matmul, lane_);
    layer.backward(matmul, lane_, true);
    layer.backward(matmul, lane_, true);
    layer.expect_all(0, 3 * 0x1p-24, stream_, 3);
}

// Whether cuBLASLt has all of them for a layer, and of one from `out` to `in` behind it.
template <class T>
bool has_epilogues(const Matmul& matmul, const Sizes& sizes) {
    const kernels::Storage storage = kernels::ConstReals(static_cast<const T*>(nullptr)).storage;
    MatmulProduct product = {.types = matmul.types_of(storage, storage),
                             .epilogue = MatmulEpilogue::bias_relu,
                             .rows = sizes.rows,
                             .in = sizes.in,
                             .out = sizes.out};
    MatmulProduct weight = product;
    weight.kind = MatmulKind::backward_weight;
    weight.epilogue = MatmulEpilogue::bias_gradient;
    weight.types = matmul.types_of(storage, kernels::Storage::fp32);
    MatmulProduct input = product;
    input.kind = MatmulKind::backward_input;
    input.epilogue = MatmulEpilogue::relu_backward;
    std::swap(input.in, input.out);
    return matmul.has(product) && matmul.has(weight) && matmul.has(input);
}

// Whatever cuBLASLt does for it, an epilogue is what the plain products and loops give.
template <class T>
void expect_epilogues(Precision precision, double error, const Stream& stream,
                      const MatmulLane& lane) {
    const Matmul matmul(precision);
    int compared = 0;
    for (const Sizes& sizes : {Sizes{16, 24, 40}, Sizes{3, 5, 7}, Sizes{40, 144, 8}}) {
        const auto [rows, in, out] = sizes;
        if (!has_epilogues<T>(matmul, sizes)) continue;
        ++compared;
        Layer<T, T> layer(sizes, stream);
        const auto bias = layer.template make<T>(1, out, 9);
        const auto on_bias = Layer<T, T>::upload(bias, stream);
        layer.forward(matmul, lane);
        std::vector<T> product(layer.y.size());
        layer.y.download(product, stream);
        const auto pitch = static_cast<std::size_t>(relu_bits_pitch(out));
        DeviceArray<std::uint8_t> on_bits(pitch * static_cast<std::size_t>(rows), "bits");
        matmul.forward_relu(lane, layer.on_x.data(), layer.on_w.data(), on_bias.data(), rows, in,
                            out, layer.y.data(), on_bits.data());
        std::vector<T> y(product.size());
        std::vector<std::uint8_t> bits(on_bits.size());
        layer.y.download(y, stream);
        on_bits.download(bits, stream);
        const auto value = [](T element) {
            return static_cast<double>(static_cast<float>(element));
        };
        for (std::size_t i = 0; i < y.size(); ++i) {
            const std::size_t column = i % static_cast<std::size_t>(out);
            const std::size_t row = i / static_cast<std::size_t>(out);
            const double right = value(product[i]) + value(bias[column]);
            EXPECT_NEAR(value(y[i]), std::max(right, 0.0), error * (2 + std::abs(right)));
            if (std::abs(right) <= error * 4) continue;
            EXPECT_EQ((bits[row * pitch + column / 8] >> (column % 8)) & 1, right > 0 ? 1 : 0);
        }
        // The same bits, as those of this layer's input: of a layer from `out` to `in`.
        Layer<T, T> next({rows, out, in}, stream);
        next.backward(matmul, lane);
        std::vector<T> d_x(next.d_x.size());
        std::vector<T> masked(next.d_x.size());
        next.d_x.download(d_x, stream);
        matmul.backward_input_relu(lane, next.on_d_y.data(), next.on_w.data(), on_bits.data(), rows,
                                   out, in, next.d_x.data());
        next.d_x.download(masked, stream);
        for (std::size_t i = 0; i < masked.size(); ++i) {
            const std::size_t column = i % static_cast<std::size_t>(out);
            const std::size_t row = i / static_cast<std::size_t>(out);
            const bool bit = ((bits[row * pitch + column / 8] >> (column % 8)) & 1) != 0;
            const double right = bit ? value(d_x[i]) : 0.0;
            EXPECT_NEAR(value(masked[i]), right, error * (1 + std::abs(right)));
        }
        // In FP32 whatever the factors are, as gradients of parameters.
        Layer<T, float> gradients(sizes, stream);
        DeviceArray<float> on_d_bias(static_cast<std::size_t>(out), "d_bias");
        matmul.backward_weight_bias(lane, gradients.on_d_y.data(), gradients.on_x.data(), rows, in,
                                    out, gradients.d_w.data(), on_d_bias.data());
        std::vector<float> d_bias(on_d_bias.size());
        on_d_bias.download(d_bias, stream);
        for (std::size_t column = 0; column < d_bias.size(); ++column) {
            double sum = 0;
            for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
                sum += value(gradients.d_y[row * d_bias.size() + column]);
            }
            EXPECT_NEAR(static_cast<double>(d_bias[column]), sum, error * (4 + rows));
        }
    }
    if (compared == 0) GTEST_SKIP() << "cuBLASLt has no such epilogues here";
}

TEST_F(MatmulTest, EpiloguesInFp32) {
    expect_epilogues<float>(Precision::fp32, 1e-5, stream_, lane_);
}
TEST_F(MatmulTest, EpiloguesInTf32) {
    expect_epilogues<float>(Precision::tf32, 1e-2, stream_, lane_);
}
TEST_F(MatmulTest, EpiloguesInBf16) {
    expect_epilogues<Bf16>(Precision::bf16, 2e-2, stream_, lane_);
}

// A sum that is split keeps its parts in the lane's workspace, so lanes may not meet there.
TEST_F(MatmulTest, LanesDoNotDisturbEachOther) {
    const Stream other;
    const MatmulLane side(other);
    const Matmul matmul(Precision::fp32);
    Layer<float, float> first({8, 784, 8}, stream_);
    Layer<float, float> second({16, 512, 8}, stream_);
    Event fork;
    Event join;
    fork.record(stream_);
    fork.hold(other);
    for (int i = 0; i < 4; ++i) {
        first.forward(matmul, lane_);
        second.forward(matmul, side);
        first.backward(matmul, lane_);
        second.backward(matmul, side);
    }
    join.record(other);
    join.hold(stream_);
    first.expect_all(0, 0x1p-24, stream_);
    second.expect_all(0, 0x1p-24, stream_);
}

TEST_F(MatmulTest, SaysWhatWasAskedFor) {
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

TEST_F(MatmulTest, MeasuresAllCandidatesAndKeepsTheFastest) {
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
TEST_F(MatmulTest, TakesWhatIsKept) {
    const MatmulProduct product = {
        .kind = MatmulKind::forward, .types = MatmulTypes::fp32, .rows = 8, .in = 640, .out = 8};
    const MatmulDevice device = MatmulPlans().device();
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

TEST_F(MatmulTest, AFileThatIsNotUnderstoodDoesNoHarm) {
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

TEST_F(MatmulTest, KeepsWhatOthersMeasured) {
    const MatmulProduct product = {.rows = 8, .in = 16, .out = 24};
    MatmulProduct other = product;
    other.types = MatmulTypes::tf32;
    const MatmulDevice ours = {.gpu = "one", .capability = "9.0", .cublaslt = 130000};
    MatmulDevice newer = ours;
    newer.cublaslt = 130100;
    MeasuredAlgorithm measured;
    for (std::uint64_t i = 0; i < 3; ++i) {
        measured.words[0] = ~i;
        measured.nodes = static_cast<int>(i);
        const MatmulDevice& device = i == 1 ? newer : ours;
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

TEST_F(MatmulTest, WithoutAHomeNothingIsKept) {
    const char* home = std::getenv("HOME");
    const std::string before = home == nullptr ? "" : home;
    ASSERT_EQ(setenv("XDG_CACHE_HOME", "not/absolute", 1), 0);
    ASSERT_EQ(setenv("HOME", "/somewhere", 1), 0);
    EXPECT_EQ(matmul_cache_path(), "/somewhere/.cache/vae/matmul-plans.json");
    ASSERT_EQ(unsetenv("HOME"), 0);
    EXPECT_EQ(matmul_cache_path(), std::nullopt);
    EXPECT_EQ(save_matmul_algorithms({}, {}), std::nullopt);
    EXPECT_EQ(MatmulCache({}).find({}), nullptr);
    if (home != nullptr) {
        ASSERT_EQ(setenv("HOME", before.c_str(), 1), 0);
    }
}

}  // namespace
}  // namespace vae::gpu
