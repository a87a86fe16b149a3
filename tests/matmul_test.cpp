// Matrix products of a dense layer, and their epilogues, against plain loops in double. Runs on a
// GPU, or under the emulation.
#include "host/gpu/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/matmul_fixture.h"

namespace vae::gpu {
namespace {

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
        // The first row times anything is 0, and stays it under each second bias: there the bit may
        // be either.
        std::fill_n(layer.x.begin(), in, T(0.0F));
        layer.on_x.upload(layer.x, stream);
        auto bias = layer.template make<T>(1, out, 9);
        for (std::size_t i = 0; i < bias.size(); i += 2) bias[i] = T(0.0F);
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
            if (row == 0 && column % 2 == 0) {
                EXPECT_EQ(value(y[i]), 0.0);
            }
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

}  // namespace
}  // namespace vae::gpu
