#include "kernels/loss_totals.h"

#include "bench/gpu_fixture.h"

namespace vae::bench {
namespace {

BENCHMARK_DEFINE_F(GpuBench, add_losses)(benchmark::State& state) {
    const auto rows = static_cast<std::size_t>(state.range(0));
    const auto recon = random_buffer(rows);
    const auto kl = random_buffer(rows);
    const DeviceBuffer<kernels::LossSums> totals(1);
    measure(state, 2 * recon.bytes(), rows, [&](cudaStream_t stream) {
        kernels::add_losses(recon.data(), kl.data(), nullptr, static_cast<int>(rows), 1.0, nullptr,
                            totals.data(), stream);
    });
}
BENCHMARK_REGISTER_F(GpuBench, add_losses)
    ->ArgName("rows")
    ->Arg(128)
    ->Arg(8192)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace vae::bench
