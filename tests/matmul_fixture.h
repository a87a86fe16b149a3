// What the tests of matrix products share: a lane, a home without measured algorithms, and layers
// whose products are compared to plain loops in double.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "host/gpu/matmul.h"
#include "tests/temporary_folder.h"

namespace vae::gpu {

using Bf16 = __nv_bfloat16;

// With a home of its own, where nobody has measured anything.
class MatmulTest : public ::testing::Test {
  protected:
    void SetUp() override {
        int count = 0;
        ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
        if (const char* home = std::getenv("XDG_CACHE_HOME")) before_ = home;
        ASSERT_EQ(setenv("XDG_CACHE_HOME", home_.path().c_str(), 1), 0);
    }
    void TearDown() override {
        ASSERT_EQ(
            before_ ? setenv("XDG_CACHE_HOME", before_->c_str(), 1) : unsetenv("XDG_CACHE_HOME"),
            0);
    }

    vae::testing::TemporaryFolder home_;
    std::optional<std::string> before_;
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
        // Sums are in FP32, which tensor cores, of all but factors in FP32, may cut.
        const bool is_rounded = std::is_same_v<In, float> && in_error == 0;
        const double sum_error = is_rounded ? 0x1p-24 : 0x1p-23;
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
                // Each term has the errors of two factors and of the sums that it is in, and the
                // result its own rounding.
                ASSERT_NEAR(got, factor * sum,
                            factor * (most * (2.1 * in_error + (inner + 2) * sum_error) +
                                      std::abs(sum) * out_error) +
                                1e-30)
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

}  // namespace vae::gpu
