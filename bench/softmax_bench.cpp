#include "kernels/softmax.h"

#include "bench/likelihood_input.h"

namespace vae::bench {
namespace {

using kernels::Storage;

// Rows × outputs in groups of so many classes: of few levels, of a byte's, of the most.
void class_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "cols", "classes"});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark->Args({128, 784 * 8, 8})->Args({128, 784 * 256, 256})->Args({128, 64 * 1024, 1024});
    benchmark->Args({8192, 128 * 32, 32});
}

// Of discrete pixels, or one-hot data, with the same outputs.
struct Softmax {
    Softmax(const benchmark::State& state, bool is_onehot, Storage of_gradient = Storage::fp32)
        : storage(of_gradient),
          settings{.classes = static_cast<int>(state.range(2)), .is_onehot = is_onehot},
          outputs(state),
          groups(outputs.cols / settings.classes),
          pixels(is_onehot ? outputs.cols : groups),
          product(random_buffer(outputs.size())),
          bias(random_buffer(outputs.width())),
          x(data()),
          recon(outputs.height()),
          d_product(outputs.size() * kernels::bytes_of(storage)),
          d_bias(outputs.width()),
          mean(x.size()),
          scratch(kernels::softmax_scratch_size(outputs.rows, pixels, settings)) {}

    kernels::LikelihoodInput input() const {
        return {product.data(), bias.data(), x.data(), outputs.rows, pixels};
    }
    kernels::LikelihoodGradient gradient() const {
        return {.scale = 1.0f / static_cast<float>(outputs.rows),
                .d_product = {d_product.data(), storage},
                .d_bias = d_bias.data()};
    }

    Storage storage;  // of d_product
    kernels::SoftmaxSettings settings;
    Extent outputs;
    int groups;  // in a row
    int pixels;
    DeviceBuffer<float> product;
    DeviceBuffer<float> bias;
    DeviceBuffer<float> x;
    DeviceBuffer<float> recon;
    DeviceBuffer<std::byte> d_product;
    DeviceBuffer<float> d_bias;
    DeviceBuffer<float> mean;
    ScratchBuffer scratch;

  private:
    // Levels, or groups whose last value is the 1.
    DeviceBuffer<float> data() const {
        const auto size = outputs.height() * static_cast<std::size_t>(pixels);
        if (!settings.is_onehot) return level_buffer(size, settings.classes - 1, 1.0f);
        std::vector<float> group(static_cast<std::size_t>(settings.classes), 0.0f);
        group.back() = 1;
        std::vector<float> row;
        for (int g = 0; g < groups; ++g) row.insert(row.end(), group.begin(), group.end());
        return repeated_buffer(size, row);
    }
};

class SoftmaxBench : public GpuBench {
  protected:
    void forward(benchmark::State& state, bool is_onehot) {
        const Softmax s(state, is_onehot);
        measure(state, s.product.bytes() + s.x.bytes(), s.product.size(), [&](cudaStream_t stream) {
            kernels::softmax_forward(s.input(), s.settings, s.recon.data(), s.scratch.get(),
                                     stream);
        });
    }
    void forward_backward(benchmark::State& state, bool is_onehot,
                          Storage storage = Storage::fp32) {
        const Softmax s(state, is_onehot, storage);
        measure(state, s.product.bytes() + s.x.bytes() + s.d_product.bytes(), s.product.size(),
                [&](cudaStream_t stream) {
                    kernels::softmax_forward_backward(s.input(), s.settings, s.gradient(),
                                                      s.recon.data(), s.scratch.get(), stream);
                });
    }
    void mean(benchmark::State& state, bool is_onehot) {
        const Softmax s(state, is_onehot);
        measure(state, s.product.bytes() + s.mean.bytes(), s.product.size(),
                [&](cudaStream_t stream) {
                    kernels::softmax_mean(s.input(), s.settings, s.mean.data(), stream);
                });
    }
};

BENCHMARK_DEFINE_F(SoftmaxBench, categorical_forward)(benchmark::State& state) {
    forward(state, false);
}
BENCHMARK_REGISTER_F(SoftmaxBench, categorical_forward)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, categorical_forward_backward)(benchmark::State& state) {
    forward_backward(state, false);
}
BENCHMARK_REGISTER_F(SoftmaxBench, categorical_forward_backward)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, categorical_forward_backward_bf16)(benchmark::State& state) {
    forward_backward(state, false, Storage::bf16);
}
BENCHMARK_REGISTER_F(SoftmaxBench, categorical_forward_backward_bf16)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, categorical_mean)(benchmark::State& state) {
    mean(state, false);
}
BENCHMARK_REGISTER_F(SoftmaxBench, categorical_mean)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, onehot_forward)(benchmark::State& state) {
    forward(state, true);
}
BENCHMARK_REGISTER_F(SoftmaxBench, onehot_forward)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, onehot_forward_backward)(benchmark::State& state) {
    forward_backward(state, true);
}
BENCHMARK_REGISTER_F(SoftmaxBench, onehot_forward_backward)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, onehot_forward_backward_bf16)(benchmark::State& state) {
    forward_backward(state, true, Storage::bf16);
}
BENCHMARK_REGISTER_F(SoftmaxBench, onehot_forward_backward_bf16)->Apply(class_sizes);

BENCHMARK_DEFINE_F(SoftmaxBench, onehot_mean)(benchmark::State& state) {
    mean(state, true);
}
BENCHMARK_REGISTER_F(SoftmaxBench, onehot_mean)->Apply(class_sizes);

}  // namespace
}  // namespace vae::bench
