// How cuBLASLt makes TF32 of a float, which is not documented: it may round to the nearest, or drop
// the lower bits, whose errors all have one sign and add up. Runs on a GPU, where the report says
// which, or under the emulation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "host/gpu/matmul.h"

namespace vae::gpu {
namespace {

struct Sizes {
    int rows, in, out;
};

// The products rows x out of factors that are zero but for their first column of `in`.
std::vector<float> products(const Matmul& matmul, const MatmulLane& lane, const Sizes& sizes,
                            float of_x, float of_w) {
    const auto upload = [&](int rows, float value) {
        std::vector<float> values(static_cast<std::size_t>(rows) *
                                  static_cast<std::size_t>(sizes.in));
        for (std::size_t i = 0; i < values.size(); i += static_cast<std::size_t>(sizes.in)) {
            values[i] = value;
        }
        DeviceArray<float> array(values.size(), "a factor");
        array.upload(values, lane.stream);
        return array;
    };
    const DeviceArray<float> x = upload(sizes.rows, of_x);
    const DeviceArray<float> w = upload(sizes.out, of_w);
    std::vector<float> y(static_cast<std::size_t>(sizes.rows) *
                         static_cast<std::size_t>(sizes.out));
    DeviceArray<float> on_y(y.size(), "y");
    matmul.forward(lane, x.data(), w.data(), sizes.rows, sizes.in, sizes.out, on_y.data());
    on_y.download(y, lane.stream);
    return y;
}

TEST(MatmulRounding, OfTf32IsCutNearestOrNone) {
    // Three quarters of a unit in the last of TF32's places above 1.
    constexpr float kUnit = 0x1p-10F;
    constexpr float kProbe = 1 + 0.75F * kUnit;
    const Stream stream;
    const MatmulLane lane(stream);
    const Matmul matmul(Precision::tf32);
    std::set<std::string> found;
    for (const Sizes& sizes : {Sizes{16, 16, 16}, Sizes{128, 784, 400}, Sizes{1024, 1024, 1024}}) {
        for (const bool is_of_x : {true, false}) {
            for (const float sign : {1.0F, -1.0F}) {
                SCOPED_TRACE(testing::Message() << sizes.rows << ' ' << sizes.in << ' ' << sizes.out
                                                << (is_of_x ? " x" : " w") << sign);
                const float probe = sign * kProbe;
                const std::vector<float> y =
                    products(matmul, lane, sizes, is_of_x ? probe : 1, is_of_x ? 1 : probe);
                ASSERT_EQ(y, std::vector<float>(y.size(), y.front()));
                const float got = sign * y.front();
                ASSERT_TRUE(got == 1 || got == 1 + kUnit || got == kProbe) << got;
                found.insert(got == kProbe ? "kept" : got == 1 ? "cut" : "rounded to the nearest");
            }
        }
    }
    std::string what;
    for (const std::string& one : found) what += (what.empty() ? "" : " or ") + one;
    // scripts/check_gpu shows this line.
    std::cout << "TF32 of a float: " << what << '\n';
}

}  // namespace
}  // namespace vae::gpu
