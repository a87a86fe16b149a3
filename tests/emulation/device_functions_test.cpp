// Functions of the device that round otherwise than the host's library.
#include <gtest/gtest.h>

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "emulation.h"

namespace emulation {
namespace {

struct Function {
    const char* name;
    float (*on_device)(float);
    double (*exact)(double);
    int units;  // as far as the manual allows it to be from the nearest
    float low;  // arguments
    float high;
};

constexpr std::array kFunctions = {
    Function{"expf", expf_of, std::exp, 2, -80, 80},
    Function{"expm1f", expm1f_of, std::expm1, 1, -10, 80},
    Function{"logf", logf_of, std::log, 1, 0.001f, 10},
    Function{"log1pf", log1pf_of, std::log1p, 1, -0.9f, 10},
    Function{"tanhf", tanhf_of, std::tanh, 2, -5, 5},
    Function{"erfcf", erfcf_of, std::erfc, 4, -3, 9},
};

// How far results are from the nearest floats, in units of their last places, up being positive.
std::vector<int> distances(const Function& function) {
    constexpr int kCount = 4001;
    std::vector<int> result;
    for (int i = 0; i < kCount; ++i) {
        const auto part = static_cast<float>(i) / (kCount - 1);
        const float x = function.low + part * (function.high - function.low);
        const auto nearest = static_cast<float>(function.exact(x));
        float value = function.on_device(x);
        int distance = 0;
        for (; value > nearest && distance < 9; ++distance) value = std::nextafter(value, nearest);
        for (; value < nearest && distance > -9; --distance) value = std::nextafter(value, nearest);
        result.push_back(distance);
    }
    return result;
}

class DeviceFunctions : public testing::Test {
  protected:
    void TearDown() override { reset(); }
};

TEST_F(DeviceFunctions, AreAsFarFromTheNearestAsIsAskedFor) {
    for (const Function& function : kFunctions) {
        SCOPED_TRACE(function.name);
        set_rounding(Rounding::up);
        const auto up = distances(function);
        EXPECT_EQ(*std::max_element(up.begin(), up.end()), function.units);
        EXPECT_GE(*std::min_element(up.begin(), up.end()), 0) << "exact ones stay";
        set_rounding(Rounding::down);
        const auto down = distances(function);
        EXPECT_EQ(*std::min_element(down.begin(), down.end()), -function.units);
        EXPECT_LE(*std::max_element(down.begin(), down.end()), 0);
        set_rounding(Rounding::random, 7);
        const auto random = distances(function);
        for (int by = -function.units; by <= function.units; ++by) {
            const auto share = static_cast<double>(std::count(random.begin(), random.end(), by)) /
                               static_cast<double>(random.size());
            EXPECT_NEAR(share * (2 * function.units + 1), 1, 0.2) << by;
        }
        EXPECT_EQ(distances(function), random) << "the same for an argument";
        set_rounding(Rounding::random, 8);
        EXPECT_NE(distances(function), random);
        set_rounding(Rounding::host);
        const auto host = distances(function);
        EXPECT_LE(*std::max_element(host.begin(), host.end()), function.units);
        EXPECT_GE(*std::min_element(host.begin(), host.end()), -function.units);
    }
}

TEST_F(DeviceFunctions, KeepWhatIsExactAndTheirRange) {
    for (const Rounding rounding : {Rounding::up, Rounding::down}) {
        set_rounding(rounding);
        EXPECT_EQ(expf(0.0f), 1);
        EXPECT_EQ(expf(-200.0f), 0);
        EXPECT_EQ(expf(200.0f), INFINITY);
        EXPECT_GE(expf(-103.0f), 0) << "subnormal";
        EXPECT_TRUE(std::isnan(expf(std::nanf(""))));
        EXPECT_EQ(expm1f(0.0f), 0);
        EXPECT_GE(expm1f(-90.0f), -1);
        EXPECT_EQ(logf(1.0f), 0);
        EXPECT_EQ(logf(0.0f), -INFINITY);
        EXPECT_LE(tanhf(30.0f), 1);
        EXPECT_GE(tanhf(-30.0f), -1);
        EXPECT_LE(erfcf(-30.0f), 2);
    }
}

// The bounds are those of CUDA's and PTX's manuals. cuRAND's angles lie in (0, 2π].
TEST_F(DeviceFunctions, FastSineAndCosineAreAsWrongAsTheSpecialFunctionUnit) {
    double worst_sine = 0;
    double worst_cosine = 0;
    constexpr int kCount = 100000;
    for (int i = 1; i <= kCount; ++i) {
        const float x = 6.2831855f * static_cast<float>(i) / kCount;
        float sine = 0;
        float cosine = 0;
        __sincosf(x, &sine, &cosine);
        EXPECT_EQ(sine, __sinf(x));
        EXPECT_EQ(cosine, __cosf(x));
        worst_sine = std::max(worst_sine, std::abs(sine - std::sin(static_cast<double>(x))));
        worst_cosine = std::max(worst_cosine, std::abs(cosine - std::cos(static_cast<double>(x))));
    }
    for (const double worst : {worst_sine, worst_cosine}) {
        EXPECT_GT(worst, 0x1p-21) << "as exact as the library's";
        EXPECT_LT(worst, 0x1.6ap-21) << "2^-20.5";
    }
}

}  // namespace
}  // namespace emulation
