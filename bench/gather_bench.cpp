#include "kernels/gather.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

using kernels::Pixels;

class GatherBench : public GpuBench {
  protected:
    // T are the data's; also with a copy in bf16.
    template <class T>
    void run(benchmark::State& state, Pixels pixels, bool is_copied = false,
             bool is_streamed = false) {
        const Extent extent(state);
        const DeviceBuffer<T> data(extent.size());
        const auto index = row_index(extent.height());
        const std::uint32_t* const number = is_streamed ? index.data() : nullptr;
        const DeviceBuffer<float> x(extent.size());
        const DeviceBuffer<kernels::Bf16> rounded_x(is_copied ? extent.size() : 0);
        kernels::Bf16* const copy = is_copied ? rounded_x.data() : nullptr;
        measure(state, data.bytes() + x.bytes() + rounded_x.bytes(), extent.size(),
                [&](cudaStream_t stream) {
                    kernels::gather(data.data(), index.data(), number, extent.rows, extent.cols,
                                    pixels, {}, 0, x.data(), copy, stream);
                });
    }
};

BENCHMARK_DEFINE_F(GatherBench, grey)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::grey);
}
BENCHMARK_REGISTER_F(GatherBench, grey)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, grey_bf16)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::grey, true);
}
BENCHMARK_REGISTER_F(GatherBench, grey_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, counts)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::counts);
}
BENCHMARK_REGISTER_F(GatherBench, counts)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, binary)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::binary);
}
BENCHMARK_REGISTER_F(GatherBench, binary)->Apply(batch_sizes);

// Of examples that do not lie at their numbers.
BENCHMARK_DEFINE_F(GatherBench, binary_streamed)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::binary, false, true);
}
BENCHMARK_REGISTER_F(GatherBench, binary_streamed)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, binary_bf16)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::binary, true);
}
BENCHMARK_REGISTER_F(GatherBench, binary_bf16)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, floats)(benchmark::State& state) {
    run<float>(state, Pixels::grey);
}
BENCHMARK_REGISTER_F(GatherBench, floats)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
