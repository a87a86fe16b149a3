// The benchmarks of products of ours, whose names follow from what is computed and how: by one
// kernel ("fused"), or by cuBLASLt and a kernel of ours behind it ("apart"), in each precision.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "host/config.h"
#include "kernels/dense.h"
#include "kernels/reals.h"

namespace vae::bench {

// Register them: hidden layers; the heads and the output of a small network.
void add_dense_layers();
void add_dense_elbo();

// How kernels of ours take floats as factors in this precision.
kernels::FloatFactors factors_of(Precision precision);

using DenseRow = std::function<void(benchmark::State&, Precision, bool is_fused)>;
// That of measure(element, state, precision, is_fused), where the type of `element` is that of what
// is stored as factors are.
template <class Measure>
DenseRow by_storage(const Measure& measure) {
    return [measure](benchmark::State& state, Precision precision, bool is_fused) {
        if (precision == Precision::bf16) {
            measure(kernels::Bf16{}, state, precision, is_fused);
        } else {
            measure(float{}, state, precision, is_fused);
        }
    };
}
// All rows of a name, of each of these sizes {rows, in, out} if there are any. What is fused fails
// where the GPU has no such kernels.
void add_dense(const std::string& name, const DenseRow& measure,
               const std::vector<std::vector<std::int64_t>>& sizes = {});

}  // namespace vae::bench
