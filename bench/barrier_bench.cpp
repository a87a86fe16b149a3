// What a barrier of all blocks of a grid takes, and one of a cluster: kernels with twice as many of
// them, less those with as many.
#include <fmt/format.h>

#include <stdexcept>
#include <string>

#include "bench/findings.h"
#include "bench/machine_bench.h"
#include "bench/machine_kernels.h"

namespace vae::bench {
namespace {

constexpr int kBarriers = 200;
constexpr int kIterations = 9;
constexpr unsigned kManyClusters = 4;  // of the largest size, which every Hopper has room for

class Trace {
  public:
    explicit Trace(unsigned blocks) : arrived_(1), faults_(1), rounds_(blocks) {}
    BarrierTrace looking() const { return {arrived_.data(), faults_.data(), rounds_.data()}; }
    BarrierTrace timed() const { return {arrived_.data(), faults_.data(), nullptr}; }
    void restart(cudaStream_t stream) const {
        kernels::cuda_check(cudaMemsetAsync(arrived_.data(), 0, arrived_.bytes(), stream),
                            "cudaMemsetAsync");
    }
    // Throws if a barrier was none.
    void check(const gpu::Stream& stream) const {
        unsigned faults = 0;
        stream.synchronize();
        kernels::cuda_check(
            cudaMemcpy(&faults, faults_.data(), sizeof faults, cudaMemcpyDeviceToHost),
            "cudaMemcpy");
        if (faults > 0) throw std::runtime_error(fmt::format("barriers let {} blocks by", faults));
    }

  private:
    DeviceBuffer<unsigned> arrived_;
    DeviceBuffer<unsigned> faults_;
    DeviceBuffer<unsigned> rounds_;
};

// enqueue(barriers, trace) of a launch of so many blocks.
template <class Enqueue>
void measure(Machine& machine, benchmark::State& state, const std::string& name, unsigned blocks,
             const Enqueue& enqueue) {
    const gpu::Stream& stream = machine.stream();
    const Trace trace(blocks);
    enqueue(kBarriers, trace.looking());
    trace.check(stream);
    const double seconds = median_seconds(state, [&] {
        return machine.seconds_of_each(kBarriers, [&](int barriers) {
            trace.restart(stream.get());
            enqueue(barriers, trace.timed());
        });
    });
    trace.check(stream);
    state.counters["blocks"] = blocks;
    findings().note("barrier/" + name, seconds);
}

void measure_grid(Machine& machine, benchmark::State& state, const std::string& name, bool fills) {
    if (const std::string why = why_no_grid_barriers(); !why.empty()) return leave_out(state, why);
    const unsigned blocks =
        multiprocessors() * (fills ? grid_barrier_blocks_per_multiprocessor() : 1);
    measure(machine, state, name, blocks, [&](int barriers, const BarrierTrace& trace) {
        grid_barriers(blocks, barriers, trace, machine.stream().get());
    });
}

void measure_cluster(Machine& machine, benchmark::State& state, const std::string& name,
                     unsigned size, unsigned clusters) {
    if (const std::string why = why_no_cluster_barriers(); !why.empty()) {
        return leave_out(state, why);
    }
    try {
        measure(machine, state, name, size * clusters,
                [&](int barriers, const BarrierTrace& trace) {
                    cluster_barriers(size, clusters, barriers, trace, machine.stream().get());
                });
    } catch (const kernels::CudaError& error) {
        // 16 blocks are more than every device with clusters has.
        if (error.status() != cudaErrorInvalidClusterSize) throw;
        leave_out(state, "this device has no clusters of this size");
    }
}

}  // namespace

void add_barriers(Machine& machine) {
    for (const bool fills : {false, true}) {
        const std::string name = fills ? "grid/full" : "grid/block_a_multiprocessor";
        add_row("barrier/" + name, kIterations, [&machine, name, fills](benchmark::State& state) {
            measure_grid(machine, state, name, fills);
        });
    }
    for (const unsigned size : {8u, 16u}) {
        for (const unsigned clusters : {1u, kManyClusters}) {
            const std::string name = fmt::format("cluster/size:{}/clusters:{}", size, clusters);
            add_row("barrier/" + name, kIterations,
                    [&machine, name, size, clusters](benchmark::State& state) {
                        measure_cluster(machine, state, name, size, clusters);
                    });
        }
    }
}

}  // namespace vae::bench
