// What it costs that one kernel comes after another: in a graph, launched one by one, with an early
// start, and behind a product of cuBLASLt; and what launches cost the host.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/findings.h"
#include "bench/machine_bench.h"
#include "bench/machine_kernels.h"
#include "host/gpu/graph.h"
#include "host/gpu/matmul.h"
#include "kernels/bias_activation.h"

namespace vae::bench {
namespace {

constexpr int kNodes = 100;  // of the shorter of two chains
constexpr int kIterations = 9;
constexpr int kLaunches = 50;

// Puts one more link of a chain on the stream; the first one has nothing before it.
using Link = std::function<void(bool is_first)>;

void put_chain(const Link& link, int count) {
    for (int i = 0; i < count; ++i) link(i == 0);
}

// Seconds of a link of a graph's chain.
class GraphChain {
  public:
    GraphChain(const gpu::Stream& stream, const Link& link, bool is_one_node = true)
        : stream_(once(stream, link)),
          shorter_(stream, [&] { put_chain(link, kNodes); }),
          longer_(stream, [&] { put_chain(link, 2 * kNodes); }) {
        const std::size_t more = longer_.nodes() - shorter_.nodes();
        if (is_one_node && more != std::size_t{kNodes}) {
            throw std::runtime_error(
                fmt::format("{} links of the chain have {} nodes", kNodes, more));
        }
    }
    double seconds(Machine& machine) const {
        return machine.seconds_of_each(
            kNodes, [&](int count) { (count == kNodes ? shorter_ : longer_).launch(stream_); });
    }

  private:
    // What is loaded at its first use is there when a graph is captured.
    static const gpu::Stream& once(const gpu::Stream& stream, const Link& link) {
        link(true);
        stream.synchronize();
        return stream;
    }

    const gpu::Stream& stream_;
    gpu::Graph shorter_;
    gpu::Graph longer_;
};

struct NodeRow {
    std::string name;
    bool is_wave = false;  // as many blocks as the device has at once, not one
    bool is_early = false;
    bool counts = false;
};

// Blocks of one kernel that are on the device at once.
unsigned wave() {
    int threads = 0;
    kernels::cuda_check(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, 0),
                        "cudaDeviceGetAttribute");
    return multiprocessors() * static_cast<unsigned>(threads) / kMachineThreads;
}

// Throws unless each node of so many chains has run once, and so many others.
void check_count(const DeviceBuffer<unsigned>& count, unsigned chains, unsigned others) {
    unsigned counted = 0;
    kernels::cuda_check(cudaMemcpy(&counted, count.data(), sizeof counted, cudaMemcpyDeviceToHost),
                        "cudaMemcpy");
    // Both chains, each of them once for the cache and once by the clock.
    const unsigned expected = chains * 2 * (kNodes + 2 * kNodes) + others;
    if (counted != expected) {
        throw std::runtime_error(fmt::format("{} nodes ran, and not {}", counted, expected));
    }
}

void measure_nodes(Machine& machine, benchmark::State& state, const NodeRow& row, bool is_graph) {
    if (row.is_early && !kernels::has_early_starts()) {
        return leave_out(state, "kernels do not start early on this device");
    }
    const unsigned blocks = row.is_wave ? wave() : 1;
    const DeviceBuffer<unsigned> count(1);
    const Link link = [&](bool is_first) {
        node(blocks, row.is_early && !is_first, row.counts ? count.data() : nullptr,
             machine.stream().get());
    };
    double seconds = 0;
    if (is_graph) {
        const GraphChain chain(machine.stream(), link);
        seconds = median_seconds(state, [&] { return chain.seconds(machine); });
    } else {
        seconds = median_seconds(state, [&] {
            return machine.seconds_of_each(kNodes, [&](int nodes) { put_chain(link, nodes); });
        });
    }
    if (row.counts) check_count(count, kIterations, is_graph ? 1 : 0);
    state.counters["blocks"] = blocks;
    findings().note(fmt::format("node/{}/{}", is_graph ? "graph" : "eager", row.name), seconds);
}

// A product and a kernel behind it, less the product.
void measure_after_product(Machine& machine, benchmark::State& state, bool is_early) {
    if (is_early && !kernels::has_early_starts()) {
        return leave_out(state, "kernels do not start early on this device");
    }
    constexpr int kRows = 128;
    constexpr int kIn = 784;
    constexpr int kOut = 400;
    const auto x = random_buffer(std::size_t{kRows} * kIn);
    const auto w = random_buffer(std::size_t{kOut} * kIn);
    const DeviceBuffer<float> y(std::size_t{kRows} * kOut);
    const gpu::Stream& stream = machine.stream();
    const gpu::MatmulLane lane(stream);
    const gpu::Matmul matmul(Precision::tf32);
    const Link product = [&](bool) {
        matmul.forward(lane, x.data(), w.data(), kRows, kIn, kOut, y.data());
    };
    product(true);  // plans it, and loads its kernel
    const GraphChain products(stream, product, false);
    const GraphChain both(
        stream,
        [&](bool is_first) {
            product(is_first);
            node(wave(), is_early, nullptr, stream.get());
        },
        false);
    const double seconds = median_seconds(
        state, [&] { return std::max(both.seconds(machine) - products.seconds(machine), 0.0); });
    findings().note(is_early ? "node/after_product_early" : "node/after_product", seconds);
}

// A kernel of ours on a hidden layer of workload S.
void measure_small_kernel(Machine& machine, benchmark::State& state) {
    constexpr int kRows = 128;
    constexpr int kCols = 400;
    const auto product = random_buffer(std::size_t{kRows} * kCols);
    const auto bias = random_buffer(std::size_t{kCols});
    const DeviceBuffer<float> h(product.size());
    const GraphChain chain(machine.stream(), [&](bool) {
        kernels::bias_activation_forward(kernels::Activation::relu, product.data(), bias.data(),
                                         kRows, kCols, h.data(), machine.stream().get());
    });
    const double seconds = median_seconds(state, [&] { return chain.seconds(machine); });
    findings().note("node/small_kernel", seconds);
}

// Seconds by the host's clock from the call to the end of the work, which an idle device begins at
// once.
double seconds_until_done(const gpu::Stream& stream, const std::function<void()>& call) {
    stream.synchronize();
    const auto start = std::chrono::steady_clock::now();
    call();
    stream.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void measure_first_launch(Machine& machine, benchmark::State& state) {
    static unsigned next = 0;
    if (next + state.max_iterations > kUnusedKernels) {
        return leave_out(state, "no kernel is left that was not launched before");
    }
    const double seconds = median_seconds(state, [&] {
        return seconds_until_done(machine.stream(),
                                  [&] { unused_kernel(next++, machine.stream().get()); });
    });
    findings().note("launch/first", seconds);
}

void measure_idle_launch(Machine& machine, benchmark::State& state, bool is_graph) {
    const gpu::Stream& stream = machine.stream();
    const auto launch = [&] { node(1, false, nullptr, stream.get()); };
    const gpu::Graph graph(stream, launch);
    const std::function<void()> call =
        is_graph ? std::function<void()>([&] { graph.launch(stream); }) : launch;
    (void)seconds_until_done(stream, call);
    const double seconds = median_seconds(state, [&] { return seconds_until_done(stream, call); });
    findings().note(is_graph ? "launch/graph" : "launch/kernel", seconds);
}

}  // namespace

void add_nodes(Machine& machine) {
    const std::vector<NodeRow> rows = {
        {.name = "one_block"},
        {.name = "one_wave", .is_wave = true},
        {.name = "one_block_counts", .counts = true},
        {.name = "one_block_early", .is_early = true},
        {.name = "one_wave_early", .is_wave = true, .is_early = true},
        {.name = "one_block_counts_early", .is_early = true, .counts = true}};
    for (const bool is_graph : {true, false}) {
        for (const NodeRow& row : rows) {
            add_row(fmt::format("node/{}/{}", is_graph ? "graph" : "eager", row.name), kIterations,
                    [&machine, row, is_graph](benchmark::State& state) {
                        measure_nodes(machine, state, row, is_graph);
                    });
        }
    }
    for (const bool is_early : {false, true}) {
        add_row(is_early ? "node/after_product_early" : "node/after_product", kIterations,
                [&machine, is_early](benchmark::State& state) {
                    measure_after_product(machine, state, is_early);
                });
    }
    add_row("node/small_kernel", kIterations,
            [&machine](benchmark::State& state) { measure_small_kernel(machine, state); });
    add_row("launch/first", kUnusedKernels / 2,
            [&machine](benchmark::State& state) { measure_first_launch(machine, state); });
    for (const bool is_graph : {false, true}) {
        add_row(is_graph ? "launch/graph" : "launch/kernel", kLaunches,
                [&machine, is_graph](benchmark::State& state) {
                    measure_idle_launch(machine, state, is_graph);
                });
    }
}

}  // namespace vae::bench
