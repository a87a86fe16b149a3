#include "kernels/gather.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

using kernels::Pixels;

class GatherBench : public GpuBench {
  protected:
    template <class T>
    void run(benchmark::State& state, Pixels pixels) {
        const Extent extent(state);
        const DeviceBuffer<T> data(extent.size());
        const auto index = row_index(extent.height());
        const DeviceBuffer<float> x(extent.size());
        measure(state, data.bytes() + x.bytes(), extent.size(), [&](cudaStream_t stream) {
            kernels::gather(data.data(), index.data(), extent.rows, extent.cols, pixels, {}, 0,
                            x.data(), stream);
        });
    }
};

BENCHMARK_DEFINE_F(GatherBench, grey)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::grey);
}
BENCHMARK_REGISTER_F(GatherBench, grey)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, counts)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::counts);
}
BENCHMARK_REGISTER_F(GatherBench, counts)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, binary)(benchmark::State& state) {
    run<std::uint8_t>(state, Pixels::binary);
}
BENCHMARK_REGISTER_F(GatherBench, binary)->Apply(batch_sizes);

BENCHMARK_DEFINE_F(GatherBench, floats)(benchmark::State& state) {
    run<float>(state, Pixels::grey);
}
BENCHMARK_REGISTER_F(GatherBench, floats)->Apply(batch_sizes);

}  // namespace
}  // namespace vae::bench
