// How streamed data behave towards the runtime: that each of their waits is needed, that there are
// no others, and what happens when the device is full. Needs the emulation, whose streams run only
// when somebody waits for them, so that a wait that is missing shows.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "emulation.h"
#include "host/gpu/cuda_backend.h"
#include "host/gpu/streamed_data.h"
#include "tests/emulation/backend/small_backend.h"
#include "tests/error_message.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = test::kSmallPixels;
constexpr std::size_t kExamples = 50;

Splits splits_of_bytes() {
    Splits splits;
    splits.train = test::random_bytes(kExamples, kPixels);
    splits.test = test::random_bytes(kExamples, kPixels, kExamples);
    return splits;
}

Config config_with(DataPlacement placement) {
    Config config = test::small_config();
    config.data.placement = placement;
    return config;
}

class StreamingConduct : public ::testing::Test {
  protected:
    void SetUp() override { emulation::reset(); }
    void TearDown() override { emulation::reset(); }

    // All of a split, gathered window by window as steps gather it: each window's work is given to
    // the reader before the next one is loaded, and nothing is waited for before the end.
    // `plant` is called before the first of them.
    static std::vector<float> gather_windows(
        const Splits& splits, std::size_t window_rows, const std::function<void()>& plant = [] {}) {
        const gpu::Stream reader;
        gpu::StreamedData data(splits, window_rows, reader);
        gpu::DeviceArray<float> x(kExamples * kPixels, "x");
        std::vector<std::uint32_t> rows(kExamples);
        std::iota(rows.rbegin(), rows.rend(), 0U);
        emulation::reset();  // counts from here on
        plant();
        const auto all = std::span(std::as_const(rows));
        for (std::size_t first = 0; first < rows.size(); first += window_rows) {
            const auto window = all.subspan(first, std::min(window_rows, rows.size() - first));
            data.load(Split::train, window);
            data.gather(Split::train, data.slots(), nullptr, 0, static_cast<int>(window.size()),
                        kernels::Pixels::counts, {}, {.x = x.data() + first * kPixels}, reader);
        }
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        std::vector<float> values(x.size());
        x.download(values, reader);
        return values;
    }

    static std::vector<float> wanted() {
        const Splits splits = splits_of_bytes();
        const auto& bytes = std::get<ByteValues>(splits.train.values);
        std::vector<float> values;
        for (std::size_t r = kExamples; r-- > 0;) {
            for (std::size_t c = 0; c < kPixels; ++c) {
                values.push_back(static_cast<float>(bytes[r * kPixels + c]));
            }
        }
        return values;
    }
};

TEST_F(StreamingConduct, WindowsComeInOrder) {
    for (const std::size_t window_rows : {1U, 7U, 25U, 50U}) {
        EXPECT_EQ(gather_windows(splits_of_bytes(), window_rows), wanted()) << window_rows;
    }
}

// Each call that orders the copies and the work, left out: something is read too early or written
// over, in one of the ways that host and device may be ahead of each other. The first windows have
// nothing to wait for.
TEST_F(StreamingConduct, EveryWaitIsNeeded) {
    constexpr std::size_t kWindowRows = 5;
    constexpr std::uint64_t kWindows = kExamples / kWindowRows;
    constexpr std::uint64_t kWays = 40;
    const Splits splits = splits_of_bytes();
    const std::vector<float> right = wanted();
    const auto is_right = [&](std::uint64_t way, const std::string& call, std::uint64_t n) {
        return right == gather_windows(splits, kWindowRows, [&] {
                   if (way > 0) emulation::run_meanwhile(way);
                   if (n > 0) emulation::fail_call(call, n, cudaSuccess);
               });
    };
    for (std::uint64_t way = 0; way < kWays; ++way) EXPECT_TRUE(is_right(way, "", 0)) << way;
    struct Ordering {
        const char* call;
        std::uint64_t each;  // of a window
    };
    for (const Ordering& ordering :
         {Ordering{"cudaStreamWaitEvent", 2}, Ordering{"cudaEventRecord", 2},
          Ordering{"cudaEventSynchronize", 1}}) {
        (void)gather_windows(splits, kWindowRows);
        EXPECT_GE(emulation::calls()[ordering.call], kWindows * ordering.each);
        for (std::uint64_t n = 2 * ordering.each + 1; n <= kWindows * ordering.each; ++n) {
            bool is_seen = false;
            for (std::uint64_t way = 0; way < kWays && !is_seen; ++way) {
                is_seen = !is_right(way, ordering.call, n);
            }
            // What is recorded of the last work is for a window that does not come.
            const bool is_of_no_use =
                std::string(ordering.call) == "cudaEventRecord" && n == 2 * kWindows - 1;
            EXPECT_NE(is_seen, is_of_no_use) << ordering.call << ' ' << n << " can be left out";
        }
    }
}

// A step waits for the device only where it needs the room, and allocates nothing.
TEST_F(StreamingConduct, TrainingNeitherAllocatesNorWaitsForTheSteps) {
    const Config config = config_with(DataPlacement::streamed);
    const ParameterLayout layout(config.model, kPixels);
    gpu::CudaBackend backend(config, layout);
    backend.set_data(splits_of_bytes());
    backend.set_state(test::initial_state(layout, config));
    emulation::reset();
    backend.train({0, {}, 4, {{1e-3, 1}}, {0, 0, kExamples}});
    EXPECT_GT(emulation::pending_operations(), 0U);
    test::expect_not_called(
        {"Malloc", "Alloc", "Free", "StreamSynchronize", "DeviceSynchronize", "cudaMemGetInfo"});
    // 13 steps: one, five graphs of two, one, and what is left are windows; and one upload.
    EXPECT_EQ(emulation::calls()["cudaEventSynchronize"], 8U + 1U);
    EXPECT_EQ(backend.take_totals().losses.examples, kExamples);
}

// With the device ahead of the host and behind it, whole runs give the same bits.
TEST_F(StreamingConduct, RunsAreTheSameHoweverHostAndDeviceAreAhead) {
    Config config = config_with(DataPlacement::streamed);
    config.data.binarize = Binarize::dynamic;
    const ParameterLayout layout(config.model, kPixels);
    const auto run = [&](std::uint64_t seed) {
        emulation::reset();
        gpu::CudaBackend backend(config, layout);
        backend.set_window_bytes(1);
        backend.set_data(splits_of_bytes());
        backend.set_state(test::initial_state(layout, config));
        if (seed > 0) emulation::run_meanwhile(seed);
        backend.train({0, {}, 4, {{1e-3, 1}}, {0, 0, kExamples}});
        const double loss = backend.evaluate(Split::test, 1).loss;
        backend.train({13, {}, 4, {{1e-3, 1}}, {1, 0, kExamples}});
        return std::pair(loss, backend.state().parameters);
    };
    const auto first = run(0);
    for (std::uint64_t seed = 1; seed < 10; ++seed) EXPECT_EQ(run(seed), first) << seed;
}

// The graphs are the same for every window: what changes is read on the device.
TEST_F(StreamingConduct, GraphsAreCapturedOnce) {
    const Config config = config_with(DataPlacement::streamed);
    const ParameterLayout layout(config.model, kPixels);
    gpu::CudaBackend backend(config, layout);
    backend.set_data(splits_of_bytes());
    backend.set_state(test::initial_state(layout, config));
    backend.train({0, {}, 4, {{1e-3, 1}}, {0, 0, kExamples}});
    emulation::reset();
    backend.train({13, {}, 4, {{1e-3, 1}}, {1, 0, kExamples}});
    EXPECT_EQ(emulation::calls()["cudaStreamBeginCapture"], 0U);
    EXPECT_EQ(emulation::calls()["cudaGraphLaunch"], 6U);
}

TEST_F(StreamingConduct, AutomaticPlacementIsOnTheDeviceWhereTheyFit) {
    const Config config = config_with(DataPlacement::automatic);
    const ParameterLayout layout(config.model, kPixels);
    gpu::CudaBackend backend(config, layout);
    backend.set_window_bytes(1);
    Splits splits;
    splits.train = test::random_bytes(3000, kPixels);
    splits.test = test::random_bytes(1000, kPixels, 3000);
    emulation::set_free_memory(gpu::DeviceArena::kHeadroom + 52'000);
    backend.set_data(splits);
    EXPECT_EQ(backend.data_note(), "");
    emulation::set_free_memory(0);  // what is set again makes room for itself
    backend.set_data(splits);
    const std::string note = backend.data_note();
    EXPECT_TRUE(testing::contains(note, "streamed from the host")) << note;
    EXPECT_TRUE(testing::contains(note, "MiB")) << note;
}

TEST_F(StreamingConduct, AFullDeviceIsToldToStream) {
    const Config config = config_with(DataPlacement::device);
    const ParameterLayout layout(config.model, kPixels);
    for (std::uint64_t n = 1; n <= 2; ++n) {
        gpu::CudaBackend backend(config, layout);
        emulation::fail_call("cudaMalloc", n, cudaErrorMemoryAllocation);
        const std::string message =
            testing::message_of<RunError>([&] { backend.set_data(splits_of_bytes()); });
        EXPECT_TRUE(testing::contains(message, "out of memory")) << message;
        EXPECT_TRUE(testing::contains(message, "--data-placement streamed")) << message;
    }
}

}  // namespace
}  // namespace vae
