// What tests of kernels are held against: plain loops in double, shapes, random inputs, and
// comparisons that no NaN passes.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <ostream>
#include <random>
#include <vector>

namespace vae::test {

inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon() / 2;  // one rounding
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr std::uint32_t kSeed = 20240607;

struct Shape {
    int rows = 0;
    int cols = 0;

    std::size_t height() const { return static_cast<std::size_t>(rows); }
    std::size_t width() const { return static_cast<std::size_t>(cols); }
    std::size_t size() const { return height() * width(); }
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    return out << shape.rows << " x " << shape.cols << ", seed " << kSeed;
}

// Every pair of the sizes at which tiles and warps begin, end and are cut.
inline std::vector<Shape> ragged_shapes() {
    constexpr int kSizes[] = {0, 1, 31, 32, 33, 101, 127, 128, 129};
    std::vector<Shape> shapes;
    for (const int rows : kSizes) {
        for (const int cols : kSizes) shapes.push_back({rows, cols});
    }
    return shapes;
}

// An image, a hidden layer, and wide ones.
inline std::vector<Shape> large_shapes() {
    return {{128, 784}, {128, 400}, {3, 5000}, {2, 4099}};
}

// Small ones for each way in which an array is cut into tiles (kernels/tile_grid.h): a warp of 1,
// 2, 4 and 8 rows, a thread of one column and of four; one tile, several rows or columns of tiles,
// and both, cut off at the end. ScratchSize.ShapesReachEveryKindOfGrid says which.
inline std::vector<Shape> launch_paths() {
    return {{7, 31},    {7, 124},   {9, 31},    {9, 124},    {7, 33},    {7, 132},
            {9, 33},    {9, 132},   {16371, 1}, {16371, 4},  {32741, 1}, {32741, 4},
            {65479, 1}, {65479, 4}, {1, 32741}, {1, 130948}, {8190, 33}, {8190, 132}};
}

// Eight rows a warp and many columns of tiles: what the last block of a row of tiles finishes is
// more than a row for each of its warps.
inline constexpr Shape kEightRowsAWarp{65, 16381};

inline std::vector<float> random_normals(std::size_t size, std::uint32_t stream,
                                         float scale = 1.0f) {
    std::mt19937 generator(kSeed + stream);
    std::normal_distribution<float> normal;
    std::vector<float> values(size);
    for (float& value : values) value = scale * normal(generator);
    return values;
}

inline std::vector<float> random_uniforms(std::size_t size, std::uint32_t stream) {
    std::mt19937 generator(kSeed + stream);
    std::uniform_real_distribution<float> uniform;
    std::vector<float> values(size);
    for (float& value : values) value = uniform(generator);
    return values;
}

// A value and how far a float result may be from it.
struct Bound {
    double value = 0;
    double tolerance = 0;
};

// A sum and the sum of its terms' magnitudes, to which rounding errors are proportional.
struct Sum {
    double value = 0;
    double magnitude = 0;

    void add(double term) { add(term, std::abs(term)); }
    void add(double term, double size) {
        value += term;
        magnitude += size;
    }
    Bound within(double roundings) const { return {value, roundings * kEpsilon * magnitude}; }
};

// Every element of got within its bound; a NaN on either side fails, and so does another size.
inline void expect_close(const std::vector<float>& got, const std::vector<Bound>& want,
                         const char* name) {
    ASSERT_EQ(got.size(), want.size()) << name;
    std::size_t failures = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double error = std::abs(got[i] - want[i].value);
        // Subnormals may be flushed or rounded more coarsely than relative bounds say.
        if (error <= want[i].tolerance + std::numeric_limits<float>::min()) continue;
        if (++failures <= 3) {
            ADD_FAILURE() << name << "[" << i << "] is " << got[i] << ", not " << want[i].value
                          << " within " << want[i].tolerance;
        }
    }
    EXPECT_EQ(failures, 0u) << name;
}

inline void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b,
                             const char* name) {
    ASSERT_EQ(a.size(), b.size()) << name;
    ASSERT_FALSE(a.empty()) << name;
    for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(a[i]), std::bit_cast<std::uint32_t>(b[i]))
            << name << "[" << i << "]: " << a[i] << " and " << b[i];
    }
}

// bounds[r·cols + c] = element(r, c).
inline std::vector<Bound> each(const Shape& shape,
                               const std::function<Bound(std::size_t, std::size_t)>& element) {
    std::vector<Bound> bounds;
    bounds.reserve(shape.size());
    for (std::size_t r = 0; r < shape.height(); ++r) {
        for (std::size_t c = 0; c < shape.width(); ++c) bounds.push_back(element(r, c));
    }
    return bounds;
}

// A column sum adds at most 8 rows in a thread and 8 warps in float, the rest in double: 16
// roundings and the last of the terms' magnitudes, besides the error of each term.
inline std::vector<Bound> column_sums(const Shape& shape,
                                      const std::function<Bound(std::size_t, std::size_t)>& term) {
    std::vector<Bound> sums(shape.width());
    for (std::size_t r = 0; r < shape.height(); ++r) {
        for (std::size_t c = 0; c < shape.width(); ++c) {
            const Bound one = term(r, c);
            sums[c].value += one.value;
            sums[c].tolerance += 17 * kEpsilon * std::abs(one.value) + one.tolerance;
        }
    }
    return sums;
}

inline double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

}  // namespace vae::test
