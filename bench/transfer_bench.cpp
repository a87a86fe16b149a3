// How fast bytes move: within the device beyond its L2 cache and inside it, and from the host.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/findings.h"
#include "bench/machine_bench.h"
#include "bench/machine_kernels.h"

namespace vae::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr int kIterations = 7;

// So that it is known by the size in MiB. bytes: read and written, of one copy.
void report(benchmark::State& state, const std::string& name, double bytes, double seconds) {
    if (seconds <= 0) return;
    state.counters["bytes_per_second"] = bytes / seconds;
    findings().note(name, bytes / seconds);
}

// Throws unless what was copied last is there.
void check_end(const DeviceBuffer<float>& from, const DeviceBuffer<float>& to) {
    std::array<float, 1024> expected = {};
    std::array<float, 1024> copied = {};
    for (const auto& [buffer, values] : {std::pair(&from, &expected), std::pair(&to, &copied)}) {
        kernels::cuda_check(
            cudaMemcpy(values->data(), buffer->data() + buffer->size() - values->size(),
                       sizeof *values, cudaMemcpyDeviceToHost),
            "cudaMemcpy");
    }
    if (copied != expected) throw std::runtime_error("a copy left something out");
}

// By the runtime's copy, operands not in the cache.
void measure_device(Machine& machine, benchmark::State& state, const std::string& name,
                    std::size_t bytes) {
    const DeviceBuffer<char> from(bytes);
    const DeviceBuffer<char> to(bytes);
    const auto copy = [&](cudaStream_t stream) {
        kernels::cuda_check(
            cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream),
            "cudaMemcpyAsync");
    };
    machine.stopwatch().warm_up(copy);
    const double seconds = median_seconds(state, [&] { return machine.stopwatch().time(copy); });
    report(state, name, 2 * static_cast<double>(bytes), seconds);
}

// The same bytes again and again in one kernel: from the cache as far as they fit.
void measure_cached(Machine& machine, benchmark::State& state, const std::string& name,
                    std::size_t bytes) {
    constexpr std::size_t kEnough = 256 * kMiB;  // in the shorter of two launches
    constexpr unsigned kBlocks = 8;              // a multiprocessor, of 2048 threads
    const auto times = static_cast<int>(std::clamp<std::size_t>(kEnough / bytes, 1, 32));
    const auto from = random_buffer(bytes / sizeof(float));
    const DeviceBuffer<float> to(from.size());
    const double seconds = median_seconds(state, [&] {
        return machine.seconds_of_each(times, [&](int count) {
            copy_repeatedly(from.data(), to.data(), bytes, count, kBlocks * multiprocessors(),
                            machine.stream().get());
        });
    });
    check_end(from, to);
    report(state, name, 2 * static_cast<double>(bytes), seconds);
}

// By the host's clock, from the call until the device has them: pageable memory is read by the
// call itself.
void measure_host(Machine& machine, benchmark::State& state, const std::string& name,
                  std::size_t bytes, bool is_pinned) {
    const gpu::Stream& stream = machine.stream();
    const DeviceBuffer<char> on_device(bytes);
    std::vector<char> pageable(is_pinned ? 0 : bytes, 1);
    gpu::PinnedArray<char> pinned(is_pinned ? bytes : 1);
    char* const on_host = is_pinned ? pinned.data() : pageable.data();
    std::fill_n(on_host, bytes, char{1});  // the pages are there
    const auto copy = [&] {
        stream.synchronize();
        const auto start = std::chrono::steady_clock::now();
        kernels::cuda_check(
            cudaMemcpyAsync(on_device.data(), on_host, bytes, cudaMemcpyHostToDevice, stream.get()),
            "cudaMemcpyAsync");
        stream.synchronize();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    (void)copy();
    const double seconds = median_seconds(state, copy);
    report(state, name, static_cast<double>(bytes), seconds);
}

}  // namespace

void add_copies(Machine& machine) {
    const auto add = [&machine](const std::string& kind, std::size_t mebibytes,
                                const auto& measure) {
        const std::string name = fmt::format("copy/{}/MiB:{}", kind, mebibytes);
        add_row(name, kIterations, [&machine, name, mebibytes, measure](benchmark::State& state) {
            measure(machine, state, name, mebibytes * kMiB);
        });
    };
    for (const std::size_t mebibytes : {1, 64, 1024}) add("device", mebibytes, measure_device);
    for (const std::size_t mebibytes : {1, 4, 16, 64, 1024}) {
        add("cached", mebibytes, measure_cached);
    }
    for (const bool is_pinned : {true, false}) {
        const auto measure = [is_pinned](Machine& on, benchmark::State& state,
                                         const std::string& name, std::size_t bytes) {
            measure_host(on, state, name, bytes, is_pinned);
        };
        for (const std::size_t mebibytes : {1, 64}) {
            add(is_pinned ? "pinned" : "pageable", mebibytes, measure);
        }
    }
}

}  // namespace vae::bench
