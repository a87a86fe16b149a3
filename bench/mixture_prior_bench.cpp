#include "kernels/mixture_prior.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

// A batch, many draws of a batch, and a large prior. Columns: latent dimensions.
void prior_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "latent", "components"});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark->Args({128, 20, 100})->Args({128, 40, 500})->Args({5000, 50, 500});
    benchmark->Args({8192, 256, 1000});
}

// A mixture and codes, what is made of them, and where gradients go.
struct Mixture {
    explicit Mixture(const benchmark::State& state)
        : codes(state),
          parameters{static_cast<int>(state.range(2)), codes.cols},
          mean(random_buffer(parameters.size())),
          logvar(random_buffer(parameters.size())),
          logits(random_buffer(parameters.height())),
          z(random_buffer(codes.size())),
          weight(random_buffer(codes.height())),
          own_mean(parameters.size()),
          inverse_sigma(parameters.size()),
          excess(parameters.size()),
          offset(parameters.height()),
          log_weight(parameters.height()),
          log_ratio(codes.height()),
          score(codes.size()),
          gamma(codes.height() * parameters.height()),
          source{.mean = mean.data(),
                 .logvar = logvar.data(),
                 .row_stride = codes.cols,
                 .logits = logits.data(),
                 .components = parameters.rows,
                 .latent = codes.cols,
                 .logvar_min = -10,
                 .logvar_max = 10},
          components{own_mean.data(), inverse_sigma.data(), excess.data(), offset.data(),
                     log_weight.data()} {}

    // Of a pass over codes, components and what lies between them.
    std::size_t bytes() const {
        return z.bytes() + 3 * mean.bytes() + gamma.bytes() + score.bytes();
    }
    std::size_t terms() const { return codes.size() * parameters.height(); }
    kernels::MixtureOutputs outputs() const {
        return {.log_ratio = log_ratio.data(), .score = score.data(), .gamma = gamma.data()};
    }

    struct Sizes {
        int rows;
        int cols;
        std::size_t height() const { return static_cast<std::size_t>(rows); }
        std::size_t size() const { return height() * static_cast<std::size_t>(cols); }
    };
    Extent codes;
    Sizes parameters;
    DeviceBuffer<float> mean, logvar, logits, z, weight;
    DeviceBuffer<float> own_mean, inverse_sigma, excess, offset;
    DeviceBuffer<double> log_weight;
    DeviceBuffer<float> log_ratio, score, gamma;
    kernels::MixtureSource source;
    kernels::MixtureComponents components;
};

BENCHMARK_DEFINE_F(GpuBench, mixture_components)(benchmark::State& state) {
    const Mixture mixture(state);
    measure(state, 5 * mixture.mean.bytes(), mixture.parameters.size(), [&](cudaStream_t stream) {
        kernels::mixture_components(mixture.source, mixture.components, stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, mixture_components)->Apply(prior_sizes);

BENCHMARK_DEFINE_F(GpuBench, mixture_forward)(benchmark::State& state) {
    const Mixture mixture(state);
    prepare([&](cudaStream_t stream) {
        kernels::mixture_components(mixture.source, mixture.components, stream);
    });
    measure(state, mixture.bytes(), mixture.terms(), [&](cudaStream_t stream) {
        kernels::mixture_forward(mixture.source, mixture.components, mixture.z.data(),
                                 mixture.codes.rows, mixture.outputs(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, mixture_forward)->Apply(prior_sizes);

// D is float or Bf16, as the gradients of means and log-variances are stored.
template <class D>
void backward(GpuBench& bench, benchmark::State& state) {
    const Mixture mixture(state);
    GpuBench::prepare([&](cudaStream_t stream) {
        kernels::mixture_components(mixture.source, mixture.components, stream);
        kernels::mixture_forward(mixture.source, mixture.components, mixture.z.data(),
                                 mixture.codes.rows, mixture.outputs(), stream);
    });
    const DeviceBuffer<D> d_mean(mixture.mean.size());
    const DeviceBuffer<D> d_logvar(mixture.mean.size());
    const DeviceBuffer<float> d_logits(mixture.logits.size());
    const ScratchBuffer scratch(kernels::mixture_scratch_size(
        mixture.codes.rows, mixture.parameters.rows, mixture.codes.cols));
    // The components' means, deviations and log-variances, and the gradients of two of them.
    const std::size_t bytes =
        mixture.z.bytes() + mixture.gamma.bytes() + 3 * mixture.mean.bytes() + 2 * d_mean.bytes();
    bench.measure(state, bytes, mixture.terms(), [&](cudaStream_t stream) {
        kernels::mixture_backward(
            mixture.source, mixture.components,
            {.z = mixture.z.data(),
             .gamma = mixture.gamma.data(),
             .weight = mixture.weight.data(),
             .rows = mixture.codes.rows,
             .scale = 0.01f},
            {.mean = d_mean.data(), .logvar = d_logvar.data(), .logits = d_logits.data()},
            scratch.get(), stream);
    });
}

BENCHMARK_DEFINE_F(GpuBench, mixture_backward)(benchmark::State& state) {
    backward<float>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, mixture_backward)->Apply(prior_sizes);

BENCHMARK_DEFINE_F(GpuBench, mixture_backward_bf16)(benchmark::State& state) {
    backward<kernels::Bf16>(*this, state);
}
BENCHMARK_REGISTER_F(GpuBench, mixture_backward_bf16)->Apply(prior_sizes);

}  // namespace
}  // namespace vae::bench
