// The products around the latent space and at the output with what follows them in the same kernel,
// of the network of workload S; and the same apart, by cuBLASLt and kernels of ours.
#include <string>

#include "bench/dense_bench.h"
#include "bench/gpu_fixture.h"
#include "host/backend.h"
#include "host/gpu/matmul.h"
#include "kernels/bernoulli.h"
#include "kernels/dense_bernoulli.h"
#include "kernels/dense_reparameterize.h"

namespace vae::bench {
namespace {

using kernels::FloatFactors;

constexpr int kRows = 128;
constexpr int kHidden = 400;
constexpr int kLatent = 20;
constexpr int kStride = 24;  // of the heads, as the layout of parameters has it
constexpr int kPixels = 784;

constexpr std::size_t elements(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

// All that any of the three reads and writes, stored as T where it is a factor.
template <class T>
struct Arrays {
    DeviceBuffer<T> h = random_buffer<T>(elements(kRows, kHidden));
    DeviceBuffer<T> output_weight = random_buffer<T>(elements(kPixels, kHidden));
    DeviceBuffer<T> heads_weight = random_buffer<T>(elements(2 * kStride, kHidden));
    DeviceBuffer<T> latent_weight = random_buffer<T>(elements(kHidden, kLatent));
    DeviceBuffer<float> bias = random_buffer(kPixels);
    DeviceBuffer<float> x = random_buffer(elements(kRows, kPixels));
    DeviceBuffer<float> output = random_buffer(elements(kRows, kPixels));
    DeviceBuffer<T> d_output{elements(kRows, kPixels)};
    DeviceBuffer<float> recon{kRows};
    DeviceBuffer<float> product = random_buffer(elements(kRows, 2 * kStride));
    DeviceBuffer<T> d_heads{elements(kRows, 2 * kStride)};
    DeviceBuffer<float> z{elements(kRows, kLatent)};
    DeviceBuffer<float> d_z{elements(kRows, kLatent)};
    DeviceBuffer<float> kl{kRows};
    DeviceBuffer<float> d_bias{kPixels};
    DeviceBuffer<std::uint32_t> index = row_index(kRows);
    ScratchBuffer scratch{kRows, kPixels};

    kernels::HeadsView heads() const {
        return {.product = product.data(),
                .mu_bias = bias.data(),
                .logvar_bias = bias.data(),
                .examples = kRows,
                .latent = kLatent,
                .stride = kStride,
                .logvar_min = -10,
                .logvar_max = 10};
    }
    kernels::EpsilonSource noise() const { return {{}, index.data(), 0}; }
    kernels::LikelihoodInput input() const {
        return {.product = output.data(),
                .bias = bias.data(),
                .x = x.data(),
                .rows = kRows,
                .pixels = kPixels};
    }
    kernels::LikelihoodGradient gradient() const {
        return {.scale = 1.0f / kRows,
                .row_weight = nullptr,
                .d_product = d_output.data(),
                .d_bias = d_bias.data()};
    }
    kernels::Draws draws() const { return {.kl = kl.data(), .z = z.data()}; }
};

enum class Part { bernoulli, reparameterize, reparameterize_backward };

template <class T>
void run_fused(Part part, FloatFactors factors, const Arrays<T>& arrays, cudaStream_t stream) {
    switch (part) {
        case Part::bernoulli:
            return dense_bernoulli(factors, {kRows, kHidden, kPixels}, arrays.h.data(),
                                   arrays.output_weight.data(), arrays.input(), arrays.gradient(),
                                   arrays.recon.data(), arrays.scratch.get(), stream);
        case Part::reparameterize:
            return dense_reparameterize(factors, kHidden, arrays.h.data(),
                                        arrays.heads_weight.data(), arrays.heads(), arrays.noise(),
                                        arrays.product.data(), arrays.draws(), arrays.scratch.get(),
                                        stream);
        case Part::reparameterize_backward:
            return dense_reparameterize_backward(
                factors, {kRows, kLatent, kHidden}, arrays.h.data(), arrays.latent_weight.data(),
                arrays.heads(), arrays.noise(), {.scale = 1}, arrays.d_heads.data(), stream);
    }
}

template <class T>
void run_apart(Part part, const gpu::Matmul& matmul, const gpu::MatmulLane& lane,
               const Arrays<T>& arrays) {
    cudaStream_t stream = lane.stream.get();
    switch (part) {
        case Part::bernoulli:
            matmul.forward(lane, arrays.h.data(), arrays.output_weight.data(), kRows, kHidden,
                           kPixels, arrays.output.data());
            return bernoulli_forward_backward(arrays.input(), arrays.gradient(),
                                              arrays.recon.data(), arrays.scratch.get(), stream);
        case Part::reparameterize:
            matmul.forward(lane, arrays.h.data(), arrays.heads_weight.data(), kRows, kHidden,
                           2 * kStride, arrays.product.data());
            return reparameterize_forward(arrays.heads(), arrays.noise(), arrays.draws(), stream);
        case Part::reparameterize_backward:
            matmul.backward_input(lane, arrays.h.data(), arrays.latent_weight.data(), kRows,
                                  kLatent, kHidden, arrays.d_z.data());
            return reparameterize_backward(
                arrays.heads(), arrays.noise(), {.d_z = arrays.d_z.data(), .kl_scale = 1},
                arrays.d_heads.data(), arrays.d_bias.data(), arrays.d_bias.data() + kLatent,
                arrays.scratch.get(), stream);
    }
}

template <class T>
void measure(benchmark::State& state, Part part, Precision precision, bool is_fused) {
    const Arrays<T> arrays;
    const gpu::Stream stream;
    const gpu::MatmulLane lane(stream);
    const gpu::Matmul matmul(precision);
    Stopwatch stopwatch(stream.get());
    const auto run = [&](cudaStream_t on) {
        is_fused ? run_fused(part, factors_of(precision), arrays, on)
                 : run_apart(part, matmul, lane, arrays);
    };
    stopwatch.warm_up(run);
    for (auto _ : state) state.SetIterationTime(stopwatch.time_again(run));
}

}  // namespace

void add_dense_elbo() {
    struct Named {
        Part part;
        const char* name;
    };
    constexpr Named kParts[] = {{Part::bernoulli, "bernoulli"},
                                {Part::reparameterize, "reparameterize"},
                                {Part::reparameterize_backward, "reparameterize_backward"}};
    for (const Named& part : kParts) {
        const auto measure_part = [part](auto element, benchmark::State& state, Precision precision,
                                         bool is_fused) {
            measure<decltype(element)>(state, part.part, precision, is_fused);
        };
        add_dense(std::string("dense_") + part.name, by_storage(measure_part));
    }
}

}  // namespace vae::bench
