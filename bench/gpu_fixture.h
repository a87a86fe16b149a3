// What every benchmark of kernels shares: a stream, timing by events around the launch alone, a
// cold L2 cache for every iteration, the bandwidth of a copy in the same run as the ceiling, and
// arrays of random numbers.
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "bench/findings.h"
#include "kernels/launch.h"
#include "kernels/reals.h"
#include "kernels/scratch.h"

namespace vae::bench {

struct DeviceFree {
    void operator()(void* memory) const { (void)cudaFree(memory); }
};
struct StreamDestroy {
    using pointer = cudaStream_t;
    void operator()(cudaStream_t stream) const { (void)cudaStreamDestroy(stream); }
};
struct EventDestroy {
    using pointer = cudaEvent_t;
    void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
};

template <class T>
class DeviceBuffer {
  public:
    explicit DeviceBuffer(std::size_t size) : size_(size) {
        void* memory = nullptr;
        kernels::cuda_check(cudaMalloc(&memory, std::max<std::size_t>(bytes(), 1)), "cudaMalloc");
        memory_.reset(static_cast<T*>(memory));
        // Zeros, which are there before another stream starts.
        cudaStream_t stream = nullptr;
        kernels::cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                            "cudaStreamCreateWithFlags");
        const std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDestroy> owned(stream);
        kernels::cuda_check(cudaMemsetAsync(memory, 0, bytes(), stream), "cudaMemsetAsync");
        kernels::cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    }
    T* data() const { return memory_.get(); }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }

  private:
    std::size_t size_;
    std::unique_ptr<T, DeviceFree> memory_;
};

// The same block of values over and over.
template <class T>
DeviceBuffer<T> repeated_buffer(std::size_t size, const std::vector<T>& block) {
    DeviceBuffer<T> buffer(size);
    for (std::size_t first = 0; first < size; first += block.size()) {
        const std::size_t count = std::min(block.size(), size - first);
        kernels::cuda_check(cudaMemcpy(buffer.data() + first, block.data(), count * sizeof(T),
                                       cudaMemcpyHostToDevice),
                            "cudaMemcpy");
    }
    // A copy from pageable memory may return before it has arrived.
    kernels::cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return buffer;
}

// Standard normals, as float or as Bf16. (Of zeros a GPU that is bound by power would compute
// faster.)
template <class T = float>
DeviceBuffer<T> random_buffer(std::size_t size) {
    constexpr std::size_t kBlock = 1 << 16;
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<T> block;
    for (std::size_t i = 0; i < std::min(size, kBlock); ++i) {
        block.push_back(static_cast<T>(normal(generator)));
    }
    return repeated_buffer(size, block);
}

// Rows 0, 1, 2, … of the resident data.
inline DeviceBuffer<std::uint32_t> row_index(std::size_t rows) {
    std::vector<std::uint32_t> index(rows);
    for (std::size_t i = 0; i < rows; ++i) index[i] = static_cast<std::uint32_t>(i);
    DeviceBuffer<std::uint32_t> buffer(rows);
    kernels::cuda_check(
        cudaMemcpy(buffer.data(), index.data(), buffer.bytes(), cudaMemcpyHostToDevice),
        "cudaMemcpy");
    return buffer;
}

class ScratchBuffer {
  public:
    ScratchBuffer(int rows, int cols, int column_sums = 1)
        : ScratchBuffer(kernels::scratch_size(rows, cols, column_sums)) {}
    explicit ScratchBuffer(const kernels::ScratchSize& size)
        : partials_(size.partials), tickets_(size.tickets) {}
    kernels::Scratch get() const {
        return {partials_.data(), partials_.size(), tickets_.data(), tickets_.size()};
    }

  private:
    DeviceBuffer<float> partials_;
    DeviceBuffer<unsigned> tickets_;
};

// Times launches on a stream of its own, or the caller's, each with a cold L2 cache.
class Stopwatch {
  public:
    struct Nothing {
        void operator()(cudaStream_t) const {}
    };

    Stopwatch() : Stopwatch(make_stream()) { own_stream_.reset(stream_); }
    explicit Stopwatch(cudaStream_t stream)
        : stream_(stream), flush_(2 * level2_bytes()), start_(make_event()), stop_(make_event()) {
        kernels::cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // arrays are filled
    }

    // Runs once without looking at the clock: the first launch loads the kernel.
    template <class Run>
    void warm_up(const Run& run) {
        run(stream_);
    }
    // Seconds of run(stream), which comes after what is not timed. The flush keeps the GPU busy
    // while the launch is queued, so that its latency is not timed either.
    template <class Run, class Before = Nothing>
    double time(const Run& run, const Before& before = {}) {
        before(stream_);
        flush();
        return seconds_of(run);
    }
    // The same of what ran right before too, so that the cache has what that left there.
    template <class Run>
    double time_again(const Run& run) {
        flush();
        run(stream_);
        return seconds_of(run);
    }

  private:
    void flush() {
        kernels::cuda_check(cudaMemsetAsync(flush_.data(), 1, flush_.bytes(), stream_),
                            "cudaMemsetAsync");
    }
    template <class Run>
    double seconds_of(const Run& run) {
        using kernels::cuda_check;
        cuda_check(cudaEventRecord(start_.get(), stream_), "cudaEventRecord");
        run(stream_);
        cuda_check(cudaEventRecord(stop_.get(), stream_), "cudaEventRecord");
        cuda_check(cudaEventSynchronize(stop_.get()), "cudaEventSynchronize");
        float milliseconds = 0;
        cuda_check(cudaEventElapsedTime(&milliseconds, start_.get(), stop_.get()),
                   "cudaEventElapsedTime");
        return static_cast<double>(milliseconds) * 1e-3;
    }
    static std::size_t level2_bytes() {
        int bytes = 0;
        kernels::cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0),
                            "cudaDeviceGetAttribute");
        return static_cast<std::size_t>(bytes);
    }
    static cudaStream_t make_stream() {
        cudaStream_t stream = nullptr;
        kernels::cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                            "cudaStreamCreateWithFlags");
        return stream;
    }
    static cudaEvent_t make_event() {
        cudaEvent_t event = nullptr;
        kernels::cuda_check(cudaEventCreate(&event), "cudaEventCreate");
        return event;
    }

    cudaStream_t stream_;
    std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDestroy> own_stream_;
    DeviceBuffer<char> flush_;
    std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDestroy> start_;
    std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDestroy> stop_;
};

// Bytes a second that copies on the device read and write together: the best of a few large ones,
// measured when first asked for.
inline double copy_bandwidth() {
    static const double best = [] {
        constexpr std::size_t kLargest = std::size_t{1} << 28;
        const DeviceBuffer<char> from(kLargest);
        const DeviceBuffer<char> to(kLargest);
        Stopwatch stopwatch;
        double fastest = 0;
        for (const std::size_t bytes : {kLargest / 8, kLargest}) {
            const auto copy = [&](cudaStream_t stream) {
                kernels::cuda_check(cudaMemcpyAsync(to.data(), from.data(), bytes,
                                                    cudaMemcpyDeviceToDevice, stream),
                                    "cudaMemcpyAsync");
            };
            stopwatch.warm_up(copy);
            for (int i = 0; i < 5; ++i) {
                fastest = std::max(fastest, 2 * static_cast<double>(bytes) / stopwatch.time(copy));
            }
        }
        return fastest;
    }();
    return best;
}

class GpuBench : public benchmark::Fixture {
  public:
    // What a benchmark needs on the device before it is timed.
    template <class Run>
    static void prepare(const Run& run) {
        Stopwatch().warm_up(run);
        kernels::cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    }
    // Times run(stream), which reads and writes so many bytes and computes so many elements.
    // before(stream), which is not timed, comes before each. Returns percent_of_copy.
    template <class Run, class Before = Stopwatch::Nothing>
    double measure(benchmark::State& state, std::size_t bytes, std::size_t items, const Run& run,
                   const Before& before = {}) {
        Stopwatch stopwatch;
        stopwatch.warm_up(before);
        stopwatch.warm_up(run);
        double seconds = 0;
        for (auto _ : state) {
            const double elapsed = stopwatch.time(run, before);
            state.SetIterationTime(elapsed);
            seconds += elapsed;
        }
        const auto iterations = static_cast<std::int64_t>(state.iterations());
        state.SetBytesProcessed(iterations * static_cast<std::int64_t>(bytes));
        state.SetItemsProcessed(iterations * static_cast<std::int64_t>(items));
        const double bandwidth =
            static_cast<double>(iterations) * static_cast<double>(bytes) / seconds;
        const double percent = 100 * bandwidth / copy_bandwidth();
        state.counters["percent_of_copy"] = percent;
        return percent;
    }
};

// percent_of_copy of a kernel on what the L2 cache does not hold, for the summary.
inline void note_share_of_copy(const std::string& kernel, double percent) {
    findings().note("percent_of_copy/" + kernel, percent);
}

// Rows × columns from a benchmark's arguments.
struct Extent {
    explicit Extent(const benchmark::State& state)
        : rows(static_cast<int>(state.range(0))), cols(static_cast<int>(state.range(1))) {}

    std::size_t height() const { return static_cast<std::size_t>(rows); }
    std::size_t width() const { return static_cast<std::size_t>(cols); }
    std::size_t size() const { return height() * width(); }

    int rows;
    int cols;
};

// The pixels and the hidden layer of a small network, and of a large one.
inline void batch_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "cols"})->UseManualTime()->Unit(benchmark::kMicrosecond);
    for (const int cols : {784, 400}) benchmark->Args({128, cols});
    for (const int cols : {3072, 4096}) benchmark->Args({8192, cols});
    benchmark->Args({8191, 4095});  // no 16-byte accesses
}

// What a row under "machine/" is measured on: the pixels of the large one, some times.
inline void large_batch(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "cols"})->Args({8192, 3072})->Iterations(20);
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

}  // namespace vae::bench
