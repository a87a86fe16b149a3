// A hidden layer's products with all that belongs to them in one kernel, and the same apart: by
// cuBLASLt and a kernel of ours. The layers are those of the small workloads, and one of a large
// one.
#include "bench/dense_bench.h"

#include <algorithm>
#include <string>

#include "bench/gpu_fixture.h"
#include "host/backend.h"
#include "host/gpu/matmul.h"
#include "kernels/bias_activation.h"
#include "kernels/dense.h"

namespace vae::bench {
namespace {

using kernels::Activation;
using kernels::DenseSize;
using kernels::FloatFactors;

constexpr Activation kActivation = Activation::relu;

// A layer's arrays, stored as T; what is a gradient has the size of what it is of.
template <class T>
struct DenseLayerArrays {
    explicit DenseLayerArrays(const DenseSize& of)
        : size(of),
          x(random_buffer<T>(elements(of.rows, of.in))),
          weight(random_buffer<T>(elements(of.out, of.in))),
          d_product(random_buffer<T>(elements(of.rows, of.out))),
          before(random_buffer<T>(elements(of.rows, of.in))),
          bias(random_buffer(elements(1, std::max(of.in, of.out)))),
          product(elements(of.rows, of.out)),
          h(elements(of.rows, of.out)),
          d_before(elements(of.rows, of.in)),
          d_weight(elements(of.out, of.in)),
          d_bias(elements(1, std::max(of.in, of.out))),
          scratch(of.rows, of.in) {}

    static std::size_t elements(int rows, int columns) {
        return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
    }

    DenseSize size;
    DeviceBuffer<T> x;
    DeviceBuffer<T> weight;
    DeviceBuffer<T> d_product;
    DeviceBuffer<T> before;
    DeviceBuffer<float> bias;
    DeviceBuffer<T> product;
    DeviceBuffer<T> h;
    DeviceBuffer<T> d_before;
    DeviceBuffer<float> d_weight;
    DeviceBuffer<float> d_bias;
    ScratchBuffer scratch;
};

// Which of a layer's passes, and how.
enum class Pass { forward, backward, backward_weight };

template <class T>
void run_fused(Pass pass, FloatFactors factors, const DenseLayerArrays<T>& layer,
               cudaStream_t stream) {
    switch (pass) {
        case Pass::forward:
            return dense_forward(kActivation, factors, layer.size, layer.x.data(),
                                 layer.weight.data(), layer.bias.data(), layer.product.data(),
                                 layer.h.data(), stream);
        case Pass::backward:
            return dense_backward(kActivation, factors, layer.size, layer.d_product.data(),
                                  layer.weight.data(), layer.before.data(), layer.bias.data(),
                                  layer.d_before.data(), stream);
        case Pass::backward_weight:
            return dense_backward_weight(factors, layer.size, layer.d_product.data(),
                                         layer.x.data(), layer.d_weight.data(),
                                         {.bias = layer.d_bias.data()}, stream);
    }
}

// The same with a kernel of ours behind the product, which of the backward has the bias' gradient
// too; so that of the weights is a product alone.
template <class T>
void run_apart(Pass pass, const gpu::Matmul& matmul, const gpu::MatmulLane& lane,
               const DenseLayerArrays<T>& layer) {
    const DenseSize& size = layer.size;
    cudaStream_t stream = lane.stream.get();
    switch (pass) {
        case Pass::forward:
            matmul.forward(lane, layer.x.data(), layer.weight.data(), size.rows, size.in, size.out,
                           layer.product.data());
            return bias_activation_forward(kActivation, layer.product.data(), layer.bias.data(),
                                           size.rows, size.out, layer.h.data(), stream);
        case Pass::backward:
            matmul.backward_input(lane, layer.d_product.data(), layer.weight.data(), size.rows,
                                  size.in, size.out, layer.d_before.data());
            return bias_activation_backward(kActivation, layer.before.data(), layer.bias.data(),
                                            layer.d_before.data(), size.rows, size.in,
                                            layer.d_before.data(), layer.d_bias.data(),
                                            layer.scratch.get(), stream);
        case Pass::backward_weight:
            return matmul.backward_weight(lane, layer.d_product.data(), layer.x.data(), size.rows,
                                          size.in, size.out, layer.d_weight.data());
    }
}

template <class T>
void measure(benchmark::State& state, Pass pass, Precision precision, bool is_fused) {
    const DenseLayerArrays<T> layer({static_cast<int>(state.range(0)),
                                     static_cast<int>(state.range(1)),
                                     static_cast<int>(state.range(2))});
    const gpu::Stream stream;
    const gpu::MatmulLane lane(stream);
    const gpu::Matmul matmul(precision);
    Stopwatch stopwatch(stream.get());
    const auto run = [&](cudaStream_t on) {
        is_fused ? run_fused(pass, factors_of(precision), layer, on)
                 : run_apart(pass, matmul, lane, layer);
    };
    stopwatch.warm_up(run);
    double seconds = 0;
    for (auto _ : state) {
        const double elapsed = stopwatch.time_again(run);  // as a step finds small layers: cached
        state.SetIterationTime(elapsed);
        seconds += elapsed;
    }
    const double flops = 2.0 * layer.size.rows * layer.size.in * layer.size.out;
    state.counters["flops"] = flops * static_cast<double>(state.iterations()) / seconds;
}

}  // namespace

kernels::FloatFactors factors_of(Precision precision) {
    return precision == Precision::fp32 ? FloatFactors::two_tf32 : FloatFactors::tf32;
}

void add_dense(const std::string& name, const DenseRow& measure,
               const std::vector<std::vector<std::int64_t>>& sizes) {
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
        for (const bool is_fused : {true, false}) {
            const std::string row_name =
                name + "/" + name_of(precision) + (is_fused ? "/fused" : "/apart");
            const auto run = [measure, precision, is_fused](benchmark::State& state) {
                if (is_fused && !kernels::has_dense_kernels()) {
                    state.SkipWithError("this GPU has no such tensor cores");
                } else {
                    measure(state, precision, is_fused);
                }
            };
            auto* const row = benchmark::RegisterBenchmark(row_name.c_str(), run);
            row->UseManualTime()->Unit(benchmark::kMicrosecond);
            if (!sizes.empty()) row->ArgNames({"rows", "in", "out"});
            for (const std::vector<std::int64_t>& size : sizes) row->Args(size);
        }
    }
}

void add_dense_layers() {
    struct Named {
        Pass pass;
        const char* name;
    };
    constexpr Named kPasses[] = {{Pass::forward, "forward"},
                                 {Pass::backward, "backward"},
                                 {Pass::backward_weight, "backward_weight"}};
    // Of the workloads S, I1, I50 and L, two of each but the last.
    const std::vector<std::vector<std::int64_t>> sizes = {
        {128, 784, 400}, {128, 400, 784},  {20, 784, 200},    {20, 200, 200},
        {1000, 50, 200}, {1000, 200, 200}, {8192, 4096, 4096}};
    for (const Named& pass : kPasses) {
        const auto measure_pass = [pass](auto element, benchmark::State& state, Precision precision,
                                         bool is_fused) {
            measure<decltype(element)>(state, pass.pass, precision, is_fused);
        };
        add_dense(std::string("dense_") + pass.name, by_storage(measure_pass), sizes);
    }
}

}  // namespace vae::bench
