#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/dense_fixture.h"

namespace vae::test {
namespace {

// A gated layer [rows, in] → [rows, out], and the gradient of the layer behind it, of `behind`
// outputs. What is padding is NaN where nothing may depend on it.
struct Inputs {
    Inputs(int rows_of, int in_of, int out_of, int behind_of, const Kind& as)
        : rows(rows_of),
          in(in_of),
          out(out_of),
          behind(behind_of),
          stride(padded(out_of)),
          kind(as),
          x(make(rows, in, 1)),
          weight(make(2 * stride, in, 2)),
          weight_behind(make(behind, out, 3)),
          d_behind(make(rows, behind, 4)),
          before(make(rows, 2 * stride, 5)),
          bias(random_normals(static_cast<std::size_t>(out), 6)),
          gate_bias(random_normals(static_cast<std::size_t>(out), 7)) {
        for (int r = 0; r < 2 * stride; ++r) {
            if (!is_padding(r)) continue;
            for (int i = 0; i < in; ++i) weight[at(r, i, in)] = kNan;
            for (int row = 0; row < rows; ++row) before[at(row, r, 2 * stride)] = kNan;
        }
    }

    std::vector<float> make(int height, int width, std::uint32_t stream) const {
        return stored(random_normals(Shape{height, width}.size(), stream), kind.storage);
    }
    bool is_padding(int column) const { return column % stride >= out; }

    Bound product(int row, int column) const {
        return sum_of_products(
            kind, in, [&](std::size_t k) { return x[at(row, 0, in) + k]; },
            [&](std::size_t k) { return weight[at(column, 0, in) + k]; });
    }
    // |∂h/∂a| is at most 1, |∂h/∂g| a quarter of |a|.
    Bound h(int row, int column) const {
        const auto c = static_cast<std::size_t>(column);
        const Bound linear = product(row, column);
        const Bound gate = product(row, column + stride);
        const double a = linear.value + bias[c];
        const double s = sigmoid(gate.value + gate_bias[c]);
        const double bound_of_a = linear.tolerance + kEpsilon * std::abs(a);
        const double bound_of_g = gate.tolerance + kEpsilon * std::abs(gate.value + gate_bias[c]);
        return {a * s, bound_of_a + (std::abs(a) + bound_of_a) / 4 * bound_of_g +
                           10 * kEpsilon * std::abs(a * s)};
    }
    // Of the linear part, and of the gate from column `stride` on.
    Bound d_before(int row, int column) const {
        if (is_padding(column)) return {0, 0};
        const int output = column % stride;
        const auto c = static_cast<std::size_t>(output);
        const Bound d_h = sum_of_products(
            kind, behind, [&](std::size_t k) { return d_behind[at(row, 0, behind) + k]; },
            [&](std::size_t k) { return weight_behind[at(static_cast<int>(k), output, out)]; });
        // The kernel's own float sums, so that their rounding is no error of the slopes.
        const double a = before[at(row, output, 2 * stride)] + bias[c];
        const double g = before[at(row, output + stride, 2 * stride)] + gate_bias[c];
        const double slope = column < stride ? sigmoid(g) : a * sigmoid(g) * sigmoid(-g);
        const double value = d_h.value * slope;
        const double roundings = column < stride ? 10 : 20;
        return {value, d_h.tolerance * std::abs(slope) + roundings * kEpsilon * std::abs(value)};
    }

    int rows, in, out, behind, stride;
    Kind kind;
    std::vector<float> x;
    std::vector<float> weight;         // [2·stride, in]
    std::vector<float> weight_behind;  // [behind, out]
    std::vector<float> d_behind;       // [rows, behind]
    std::vector<float> before;         // [rows, 2·stride]
    std::vector<float> bias;
    std::vector<float> gate_bias;
};

class DenseGated : public DenseTest {
  protected:
    void check_forward(const Inputs& in, std::size_t shift) {
        StoredArray x(stream(), in.kind.storage, in.x, shift);
        StoredArray weight(stream(), in.kind.storage, in.weight, shift);
        StoredArray product(stream(), in.kind.storage, in.before.size(), shift);
        StoredArray h(stream(), in.kind.storage, Shape{in.rows, in.out}.size(), shift);
        auto bias = upload(in.bias, shift);
        auto gate_bias = upload(in.gate_bias, shift);
        dense_gated_forward(in.kind.factors, {in.rows, in.in, in.out}, x.get(), weight.get(),
                            {bias.data(), gate_bias.data(), in.stride}, product.get(), h.get(),
                            stream().get());
        const std::vector<float> got = product.download();
        std::vector<float> outputs;
        std::vector<Bound> bounds;
        for (int row = 0; row < in.rows; ++row) {
            for (int column = 0; column < 2 * in.stride; ++column) {
                const float value = got[at(row, column, 2 * in.stride)];
                if (in.is_padding(column)) {
                    ASSERT_TRUE(std::isnan(value)) << "padding is written";
                    continue;
                }
                outputs.push_back(value);
                bounds.push_back(in.product(row, column));
            }
        }
        expect_close(outputs, stored(bounds, in.kind.storage), "product");
        const auto bound = [&](std::size_t r, std::size_t c) {
            return in.h(static_cast<int>(r), static_cast<int>(c));
        };
        expect_close(h.download(), stored(each({in.rows, in.out}, bound), in.kind.storage), "h");
    }

    std::vector<float> backward(const Inputs& in, std::size_t shift, bool in_place) {
        StoredArray d_behind(stream(), in.kind.storage, in.d_behind, shift);
        StoredArray weight(stream(), in.kind.storage, in.weight_behind, shift);
        StoredArray before(stream(), in.kind.storage, in.before, shift);
        StoredArray apart(stream(), in.kind.storage, in.before.size(), shift);
        StoredArray& d_before = in_place ? before : apart;
        auto bias = upload(in.bias, shift);
        auto gate_bias = upload(in.gate_bias, shift);
        dense_gated_backward(in.kind.factors, {in.rows, in.out, in.behind}, d_behind.get(),
                             weight.get(), before.get(), {bias.data(), gate_bias.data(), in.stride},
                             d_before.get(), stream().get());
        return d_before.download();
    }
    void check_backward(const Inputs& in, std::size_t shift) {
        const auto bound = [&](std::size_t r, std::size_t c) {
            return in.d_before(static_cast<int>(r), static_cast<int>(c));
        };
        expect_close(backward(in, shift, false),
                     stored(each({in.rows, 2 * in.stride}, bound), in.kind.storage), "d_before");
    }

    // The biases' gradients go to their own arrays; the weight's are those of a layer of 2·stride.
    void check_bias_gradients(const Inputs& in) {
        std::vector<float> d_product = in.before;
        for (float& value : d_product) value = std::isnan(value) ? 0 : value;
        StoredArray gradient(stream(), in.kind.storage, d_product);
        StoredArray x(stream(), in.kind.storage, in.x);
        auto d_weight = output(in.weight.size());
        auto d_bias = output(in.bias.size());
        auto d_gate_bias = output(in.bias.size());
        dense_backward_weight(in.kind.factors, {in.rows, in.in, 2 * in.stride}, gradient.get(),
                              x.get(), d_weight.data(),
                              {d_bias.data(), d_gate_bias.data(), in.out, in.stride},
                              stream().get());
        const auto sums = [&](int first) {
            std::vector<Bound> bounds;
            for (int c = 0; c < in.out; ++c) {
                Sum sum;
                for (int r = 0; r < in.rows; ++r) {
                    sum.add(d_product[at(r, first + c, 2 * in.stride)]);
                }
                bounds.push_back(sum.within(in.rows / 8.0 + 9));
            }
            return bounds;
        };
        expect_close(d_bias.download(), sums(0), "d_bias");
        expect_close(d_gate_bias.download(), sums(in.stride), "d_gate_bias");
        const auto bound = [&](std::size_t o, std::size_t i) {
            return sum_of_products(
                in.kind, in.rows,
                [&](std::size_t k) {
                    return d_product[k * 2 * static_cast<std::size_t>(in.stride) + o];
                },
                [&](std::size_t k) { return in.x[k * static_cast<std::size_t>(in.in) + i]; });
        };
        expect_close(d_weight.download(), each({2 * in.stride, in.in}, bound), "d_weight");
    }

    void check(const Inputs& in, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << in.kind.name << ", rows " << in.rows << ", in " << in.in
                                        << ", out " << in.out << ", shift " << shift);
        check_forward(in, shift);
        check_backward(in, shift);
        check_bias_gradients(in);
    }
};

TEST_F(DenseGated, EveryRaggedSize) {
    constexpr int kSizes[] = {1, 7, 15, 16, 17, 31, 32, 33, 50, 64, 70};
    std::size_t turn = 0;
    for (const int out : kSizes) {
        for (const int rows : {1, 31, 33, 65}) {
            const int in = kSizes[turn * 5 % std::size(kSizes)];
            const int behind = kSizes[turn * 7 % std::size(kSizes)];
            check(Inputs(rows, in, out, behind, kKinds[turn % std::size(kKinds)]));
            ++turn;
        }
    }
}

TEST_F(DenseGated, EveryKind) {
    for (const Kind& kind : kKinds) check(Inputs(40, 72, 60, 40, kind));
}

TEST_F(DenseGated, LargeSizes) {
    for (const Kind& kind : kKinds) check(Inputs(100, 784, 300, 300, kind));
}

TEST_F(DenseGated, UnalignedArrays) {
    for (const Kind& kind : kKinds) {
        for (const std::size_t shift : {1, 2}) check(Inputs(40, 72, 40, 24, kind), shift);
    }
}

TEST_F(DenseGated, BackwardInPlace) {
    for (const Kind& kind : kKinds) {
        const Inputs in(65, 20, 50, 33, kind);
        expect_same_bits(backward(in, 0, true), backward(in, 0, false), "d_before");
    }
}

TEST_F(DenseGated, NoRows) {
    check(Inputs(0, 20, 33, 10, kKinds[0]));
}

TEST_F(DenseGated, AStrideBelowTheOutputsIsRefused) {
    const kernels::DenseGate gate = {nullptr, nullptr, 7};
    EXPECT_THROW(kernels::dense_gated_forward(FloatFactors::tf32, {1, 1, 8}, nullptr, nullptr, gate,
                                              nullptr, nullptr, stream().get()),
                 std::invalid_argument);
    EXPECT_THROW(kernels::dense_gated_backward(FloatFactors::tf32, {1, 8, 1}, nullptr, nullptr,
                                               nullptr, gate, nullptr, stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
