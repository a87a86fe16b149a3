// What tests of kernels/dense.h share: the kinds of factors, products of them in double with what a
// tensor core may lose, and a GPU that has these kernels.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernels/dense.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {

using kernels::DenseSize;
using kernels::FloatFactors;

// What factors are, and how floats are taken.
struct Kind {
    Storage storage;
    FloatFactors factors;
    const char* name;
};
inline constexpr Kind kKinds[] = {{Storage::fp32, FloatFactors::two_tf32, "fp32"},
                                  {Storage::fp32, FloatFactors::tf32, "tf32"},
                                  {Storage::bf16, FloatFactors::tf32, "bf16"}};

// To nearest, ties away from zero, 10 bits of mantissa: by its definition, apart from what tests
// run on.
inline double to_tf32(double value) {
    constexpr std::uint32_t kLost = 13;
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
    const std::uint32_t rounded = (bits + (1U << (kLost - 1))) >> kLost << kLost;
    return std::bit_cast<float>(rounded);
}

// What the kernels may lose of a sum of products of factors as they are taken. An instruction cuts
// each of its products and the sum before, by two roundings of the largest. Of floats in two parts
// a product lacks at most 3·2^-22 of itself; those of the first parts are in two instructions for a
// half of a stage, which no others cut, those with a rest are 2^-11 of them and in four; the sums
// of stages are added with two roundings.
inline Bound within(const Kind& kind, const Sum& sum, int terms) {
    constexpr int kAdditions = 4;  // of halves, and what is added to the sum behind it
    const int depth = kind.storage == Storage::bf16 ? 16 : 8;
    const int cuts = 2 * (depth + 1);  // of an instruction, in roundings
    if (kind.storage == Storage::fp32 && kind.factors == FloatFactors::two_tf32) {
        const double of_rests = 4 * 2 * 0x1p-11 * cuts;
        return sum.within(3 * 4 + 2 * cuts + of_rests + 2 * (terms / 32.0 + 1) + kAdditions);
    }
    const int instructions = terms / (2 * depth) + 1;  // for half of the terms
    return sum.within(cuts * instructions + kAdditions);
}

// The least stride that the layout of parameters makes: a multiple of 8.
inline int padded(int outputs) {
    return (outputs + 7) / 8 * 8;
}

// An element's place in rows of so many columns.
inline std::size_t at(int row, int column, int columns) {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
           static_cast<std::size_t>(column);
}

// Σ_k a(k)·b(k), of factors as they are stored.
inline Bound sum_of_products(const Kind& kind, int terms,
                             const std::function<double(std::size_t)>& a,
                             const std::function<double(std::size_t)>& b) {
    const bool cuts = kind.storage == Storage::fp32 && kind.factors == FloatFactors::tf32;
    Sum sum;
    for (std::size_t k = 0; k < static_cast<std::size_t>(terms); ++k) {
        sum.add(cuts ? to_tf32(a(k)) * to_tf32(b(k)) : a(k) * b(k));
    }
    return within(kind, sum, terms);
}

class DenseTest : public KernelTest {
  protected:
    void SetUp() override {
        KernelTest::SetUp();
        if (HasFatalFailure()) return;
        if (!kernels::has_dense_kernels()) GTEST_SKIP() << "a GPU without these tensor cores";
    }
};

}  // namespace vae::test
