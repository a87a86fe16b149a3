// Data that are streamed to the device give the bits of data that lie there, whatever the windows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/gpu/cuda_backend.h"
#include "host/shuffle.h"
#include "host/stored_examples.h"
#include "tests/cuda_backend_cases.h"
#include "tests/model_fixtures.h"

namespace vae {
namespace {

// What a run leaves and what it is asked for.
struct Results {
    TrainingState state;
    TrainTotals totals;
    std::vector<LossTotals> evaluations;
    std::vector<DrawBlock> draws;
    std::vector<Trace> traces;
    std::vector<std::vector<float>> examples;
};

void expect_same(const Trace& a, const Trace& b) {
    ASSERT_EQ(a.size(), b.size());
    ASSERT_FALSE(a.empty());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].values, b[i].values) << a[i].name;
}

void expect_same(const Results& a, const Results& b) {
    test::expect_same(a.state, b.state);
    test::expect_same(a.totals.losses, b.totals.losses);
    EXPECT_EQ(a.totals.skipped.count, b.totals.skipped.count);
    ASSERT_EQ(a.evaluations.size(), b.evaluations.size());
    for (std::size_t i = 0; i < a.evaluations.size(); ++i) {
        test::expect_same(a.evaluations[i], b.evaluations[i]);
    }
    ASSERT_EQ(a.draws.size(), b.draws.size());
    for (std::size_t i = 0; i < a.draws.size(); ++i) {
        EXPECT_EQ(a.draws[i].recon, b.draws[i].recon);
        EXPECT_EQ(a.draws[i].log_ratio, b.draws[i].log_ratio);
        EXPECT_EQ(a.draws[i].z, b.draws[i].z);
    }
    ASSERT_EQ(a.traces.size(), b.traces.size());
    for (std::size_t i = 0; i < a.traces.size(); ++i) expect_same(a.traces[i], b.traces[i]);
    EXPECT_EQ(a.examples, b.examples);
}

class CudaStreamingTest : public testing::TestWithParam<test::NetworkCase> {
  protected:
    Config config_with(DataPlacement placement, std::uint32_t graph_steps) const {
        Config own = config;
        own.data.placement = placement;
        own.train.graph_steps = graph_steps;
        own.train.ema = 0.9;
        return own;
    }

    // Examples that are asked for, more than once and in no order.
    static std::vector<std::uint32_t> some(std::size_t size, std::size_t count) {
        std::vector<std::uint32_t> rows(count);
        for (std::size_t i = 0; i < count; ++i) {
            rows[i] = static_cast<std::uint32_t>((i * 29 + 3) % size);
        }
        return rows;
    }

    // Epochs in parts that end within batches, and rows that are given.
    void train(gpu::CudaBackend& backend, const TrainConfig& train) const {
        const auto size = static_cast<std::uint32_t>(splits.train.size);
        const std::uint32_t batch = train.batch;
        std::uint64_t step = 0;
        const auto take = [&](std::span<const std::uint32_t> rows, const EpochPart& part) {
            const TrainRequest request = {step, rows, batch, {{1e-3, GetParam().beta}}, part};
            backend.train(request);
            step += steps_per_epoch(request.examples(), batch);
        };
        take({}, {0, 0, size});
        take({}, {1, 0, std::min(2 * batch, size)});
        take({}, {1, size / 2, size - size / 2});
        const std::vector<std::uint32_t> rows = some(size, 3 * batch + batch / 2);
        take(rows, {});
        take({}, {7, 0, size});
    }

    Results run(const Config& own, std::size_t window_bytes, gpu::Stepping stepping) const {
        gpu::CudaBackend backend(own, layout);
        backend.set_stepping(stepping);
        backend.set_window_bytes(window_bytes);
        backend.set_data(splits);
        EXPECT_EQ(backend.data_note().empty(), own.data.placement != DataPlacement::streamed);
        backend.set_state(test::initial_state(layout, own));
        const auto trace = [&] {
            const auto rows = some(splits.train.size, own.train.part_rows());
            return backend.trace({backend.state().step, rows, own.train.batch, {{1e-3, 1}}});
        };
        Results results;
        results.traces.push_back(trace());
        train(backend, own.train);
        results.totals = backend.take_totals();
        for (const Split split : {Split::train, Split::validation, Split::test}) {
            results.evaluations.push_back(backend.evaluate(split, 0.7));
            const auto rows = some(splits.of(split).size, 23);
            backend.draw({.split = split, .rows = rows, .draws = 70, .seed = 3, .wants_z = true},
                         [&](const DrawBlock& block) { results.draws.push_back(block); });
            results.examples.push_back(backend.examples(split, rows));
        }
        // What evaluation did with the ring, training goes on behind.
        const auto size = static_cast<std::uint32_t>(splits.train.size);
        backend.train({backend.state().step, {}, own.train.batch, {{1e-3, 1}}, {2, 0, size}});
        results.totals.losses += backend.take_totals().losses;
        results.traces.push_back(trace());
        results.state = backend.state();
        return results;
    }

    // Of a window of `steps` steps.
    std::size_t bytes_of(std::size_t steps) const {
        return steps * config.train.batch * row_bytes(splits);
    }

    const Config config = test::config_of(GetParam());
    const Splits splits = test::make_splits(GetParam());
    const ParameterLayout layout{config.model, GetParam().pixels};
};

TEST_P(CudaStreamingTest, GivesTheBitsOfDataOnTheDevice) {
    const Results wanted =
        run(config_with(DataPlacement::device, 2), gpu::kWindowBytes, gpu::Stepping::graphs);
    // One step in a window, and few: rings that wrap every other step, or within a step.
    for (const std::size_t steps : {1U, 3U, 1000U}) {
        for (const std::uint32_t graph_steps : {1U, 2U, 64U}) {
            SCOPED_TRACE(testing::Message() << steps << " in a window, " << graph_steps);
            const Config streamed = config_with(DataPlacement::streamed, graph_steps);
            expect_same(run(streamed, bytes_of(steps), gpu::Stepping::graphs), wanted);
        }
    }
    expect_same(run(config_with(DataPlacement::streamed, 4), bytes_of(2), gpu::Stepping::eager),
                wanted);
}

TEST_P(CudaStreamingTest, PartsOfABatchComeThroughTheSameWindows) {
    Config resident = config_with(DataPlacement::device, 2);
    Config streamed = config_with(DataPlacement::streamed, 3);
    for (Config* each : {&resident, &streamed}) each->train.micro_batches = 3;
    expect_same(run(streamed, bytes_of(2), gpu::Stepping::graphs),
                run(resident, gpu::kWindowBytes, gpu::Stepping::graphs));
}

TEST_P(CudaStreamingTest, AProfileTakesTheRunsSteps) {
    std::vector<Results> results;
    for (const DataPlacement placement : {DataPlacement::device, DataPlacement::streamed}) {
        gpu::CudaBackend backend(config_with(placement, 2), layout);
        backend.set_window_bytes(bytes_of(2));
        backend.set_data(splits);
        backend.set_state(test::initial_state(layout, config_with({}, 2)));
        const std::uint32_t batch = (config.train.batch + 1) / 2;  // else too few steps
        const auto whole = static_cast<std::uint32_t>(splits.train.size) / batch;
        const StepProfile profile =
            backend.profile({0, {}, batch, {{1e-3, 1}}, {0, 0, whole * batch}});
        EXPECT_GT(profile.steps, 0);
        results.emplace_back();
        results.back().state = backend.state();
        results.back().totals = backend.take_totals();
    }
    expect_same(results[1], results[0]);
}

// A resumed run is in the middle of an epoch, and another window.
TEST_P(CudaStreamingTest, GoesOnInTheMiddleOfAnEpoch) {
    const Config streamed = config_with(DataPlacement::streamed, 2);
    const auto size = static_cast<std::uint32_t>(splits.train.size);
    const std::uint32_t batch = config.train.batch;
    const auto begin = [&](gpu::CudaBackend& backend, const TrainingState& state) {
        backend.set_window_bytes(bytes_of(2));
        backend.set_data(splits);
        backend.set_state(state);
    };
    gpu::CudaBackend whole(streamed, layout);
    begin(whole, test::initial_state(layout, streamed));
    whole.train({0, {}, batch, {{1e-3, 1}}, {4, 0, size}});
    gpu::CudaBackend first(streamed, layout);
    begin(first, test::initial_state(layout, streamed));
    first.train({0, {}, batch, {{1e-3, 1}}, {4, 0, 3 * batch}});
    gpu::CudaBackend second(streamed, layout);
    begin(second, first.state());
    second.train({3, {}, batch, {{1e-3, 1}}, {4, 3 * batch, size - 3 * batch}});
    EXPECT_EQ(second.state().parameters, whole.state().parameters);
    EXPECT_EQ(second.state().moments, whole.state().moments);
}

// Rows of floats beside rows of bytes lie elsewhere in the ring.
TEST_P(CudaStreamingTest, SplitsOfBothKinds) {
    Splits mixed = splits;
    if (!std::holds_alternative<ByteValues>(mixed.validation.values)) {
        GTEST_SKIP() << "has no bytes";
    }
    const auto& bytes = std::get<ByteValues>(mixed.validation.values);
    mixed.validation.values = std::vector<float>(bytes.begin(), bytes.end());
    gpu::CudaBackend resident(config_with(DataPlacement::device, 2), layout);
    gpu::CudaBackend streamed(config_with(DataPlacement::streamed, 2), layout);
    streamed.set_window_bytes(1);
    for (gpu::CudaBackend* backend : {&resident, &streamed}) backend->set_data(mixed);
    for (int i = 0; i < 3; ++i) {
        for (const Split split : {Split::train, Split::validation, Split::test}) {
            const auto rows = some(mixed.of(split).size, 40);
            EXPECT_EQ(streamed.examples(split, rows), resident.examples(split, rows));
        }
    }
}

// More rows than the host lays out at a time.
TEST(CudaStreaming, ManyRowsThatAreGiven) {
    Config config;
    config.model.encoder_hidden = {};
    config.model.latent = 1;
    config.model.decoder_hidden = {};
    config.train.batch = 8192;
    config.train.precision = Precision::fp32;
    const ParameterLayout layout(config.model, 2);
    Splits splits;
    splits.train = test::random_bytes(301, 2);
    splits.test = test::random_bytes(1, 2, 301);
    std::vector<std::uint32_t> rows((std::size_t{1} << 16) + 5000);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = static_cast<std::uint32_t>(i * i % 301);
    }
    const auto trained = [&](DataPlacement placement) {
        config.data.placement = placement;
        gpu::CudaBackend backend(config, layout);
        backend.set_data(splits);
        backend.set_state(test::initial_state(layout, config));
        backend.train({0, rows, config.train.batch, {{1e-2, 1}}});
        return backend.state().parameters;
    };
    EXPECT_EQ(trained(DataPlacement::streamed), trained(DataPlacement::device));
}

// Its windows are made for train.batch.
TEST_P(CudaStreamingTest, ALargerBatchThanAWindowIsRefused) {
    gpu::CudaBackend backend(config_with(DataPlacement::streamed, 2), layout);
    backend.set_window_bytes(1);
    backend.set_data(splits);
    backend.set_state(test::initial_state(layout, config_with({}, 2)));
    const std::uint32_t batch = config.train.batch + 1;
    EXPECT_THROW(backend.train({0, {}, batch, {{1e-3, 1}}, {0, 0, batch}}), std::invalid_argument);
}

std::vector<test::NetworkCase> streamed_cases() {
    const std::vector<std::string> names = {"tanh_deep_ragged", "softplus_gaussian", "gelu_dynamic",
                                            "silu_fixed",       "poisson_bytes",     "dreg"};
    std::vector<test::NetworkCase> cases;
    for (const test::NetworkCase& each : test::network_cases()) {
        for (const std::string& name : names) {
            if (name == each.name) cases.push_back(each);
        }
    }
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Networks, CudaStreamingTest, testing::ValuesIn(streamed_cases()),
                         [](const auto& network) { return std::string(network.param.name); });

}  // namespace
}  // namespace vae
