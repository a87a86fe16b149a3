// What device memory the CUDA backend takes, and when. Needs the emulation, which counts it.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation.h"
#include "host/gpu/cuda_backend.h"
#include "host/gpu/device_arena.h"
#include "host/memory_text.h"
#include "tests/emulation/backend/small_backend.h"

namespace vae {
namespace {

constexpr std::size_t kPixels = test::kSmallPixels;
constexpr std::uint32_t kExamples = 18;

// Of each part that allocates, one that makes it.
std::vector<Config> configs() {
    std::vector<Config> all(8, test::small_config());
    all[1].train.precision = Precision::bf16;
    all[2].objective.bound = Bound::iwae;
    all[2].objective.samples = 3;
    all[3].model.prior = Prior::vamp;
    all[3].model.prior_components = 5;
    all[4].model.posterior = PosteriorCovariance::full;
    all[4].train.micro_batches = 2;
    all[5].model.likelihood = Likelihood::gaussian;
    all[5].model.variance = Variance::shared;
    all[5].train.optimizer = Optimizer::sgd;
    all[6].objective.free_bits = 0.1;
    all[6].model.activation = Activation::gated;
    all[7].train.plan = FusionPlan::epilogue;
    return all;
}

class DeviceMemory : public testing::Test {
  protected:
    void SetUp() override {
        if (const char* const value = std::getenv(kSeparate)) outside_ = value;
        ASSERT_EQ(unsetenv(kSeparate), 0);
        emulation::reset();
    }
    void TearDown() override {
        ASSERT_EQ(unsetenv(kSeparate), 0);
        if (outside_) {
            ASSERT_EQ(setenv(kSeparate, outside_->c_str(), 1), 0);
        }
        emulation::reset();
    }

    static constexpr const char* kSeparate = "VAE_SEPARATE_ARRAYS";
    std::optional<std::string> outside_;

    static TrainingState initial(const Config& config, const ParameterLayout& layout) {
        return start_state(config.train, initial_parameters(layout, Initialization::pytorch, 1));
    }
    static void start(gpu::CudaBackend& backend, const Config& config,
                      const ParameterLayout& layout, const Splits& splits) {
        backend.set_data(splits);
        backend.set_state(initial(config, layout));
    }
    // All that a run, and who reads it, does with a backend again and again.
    static void use(Backend& backend, const Config& config) {
        const TrainRequest epoch = {.first_step = 0,
                                    .batch = 4,
                                    .schedule = {{1e-3, 1}},
                                    .part = {.epoch = 0, .first = 0, .count = kExamples}};
        backend.train(epoch);
        (void)backend.take_totals();
        (void)backend.evaluate(Split::test, 1);
        (void)backend.encode(std::vector<float>(2 * kPixels, 0.5F));
        (void)backend.decode(std::vector<float>(std::size_t{2} * config.model.latent, 0.5F));
        (void)backend.outputs(std::vector<float>(std::size_t{2} * config.model.latent, 0.5F));
        const std::vector<std::uint32_t> rows = {0, 1, 2};
        (void)backend.examples(Split::test, rows);
        backend.draw({.split = Split::test, .rows = rows, .draws = 5}, [](const DrawBlock&) {});
        (void)backend.state();
    }
};

TEST_F(DeviceMemory, IsOneAllocationOfTheSizeThatWasPredicted) {
    for (const Config& config : configs()) {
        const ParameterLayout layout(config.model, kPixels);
        const gpu::SelectedDevice device = {
            .name = "", .precision = config.train.precision, .has_tf32 = true};
        emulation::reset();
        const std::size_t predicted = gpu::CudaBackend::bytes_needed(config, layout, device);
        EXPECT_EQ(emulation::calls()["cudaMalloc"], 0U);
        const std::size_t before = emulation::live().device_bytes;
        const gpu::CudaBackend backend(config, layout);
        EXPECT_EQ(emulation::calls()["cudaMalloc"], 1U);
        EXPECT_EQ(emulation::live().device_bytes - before, predicted);
        EXPECT_EQ(backend.device_bytes(), predicted);
    }
}

TEST_F(DeviceMemory, IsAllocatedAtTheStartAlone) {
    const Splits splits = test::small_splits(kExamples);
    for (const Config& config : configs()) {
        const ParameterLayout layout(config.model, kPixels);
        gpu::CudaBackend backend(config, layout);
        start(backend, config, layout, splits);
        emulation::reset();
        use(backend, config);
        test::expect_not_called({"Malloc", "Alloc"});
    }
}

// Each of the changes that an error names, as a configuration and a precision.
std::vector<Config> changes_of(const std::string& message, const Config& config) {
    static const std::regex change_pattern(
        R"(train\.(batch|micro_batches|precision) = \"?(\w+)\"?)");
    std::vector<Config> all;
    for (std::sregex_iterator at(message.begin(), message.end(), change_pattern), end; at != end;
         ++at) {
        Config changed = config;
        const std::string value = (*at)[2];
        if ((*at)[1] == "precision") {
            EXPECT_EQ(value, "bf16");
            changed.train.precision = Precision::bf16;
        } else if ((*at)[1] == "batch") {
            changed.train.batch = static_cast<std::uint32_t>(std::stoul(value));
        } else {
            changed.train.micro_batches = static_cast<std::uint32_t>(std::stoul(value));
        }
        all.push_back(changed);
    }
    return all;
}

TEST_F(DeviceMemory, TooLittleIsRefusedBeforeItIsAskedForAndWhatIsSaidToFitFits) {
    Config config;
    // Most of it hidden layers, which bf16 halves.
    config.model.encoder_hidden = {512, 512, 512};
    config.train.batch = 40000;
    config.train.precision = Precision::tf32;
    const ParameterLayout layout(config.model, kPixels);
    const std::size_t needed = gpu::CudaBackend::bytes_needed(
        config, layout, {.name = "", .precision = Precision::tf32, .has_tf32 = true});
    emulation::reset();
    // At first only because of the headroom.
    for (const std::size_t missing : {std::size_t{1}, needed / 12, needed / 3}) {
        const std::size_t free = needed + gpu::DeviceArena::kHeadroom - missing;
        emulation::set_free_memory(free);
        std::string message;
        try {
            const gpu::CudaBackend backend(config, layout);
            FAIL() << "made without memory";
        } catch (const RunError& error) {
            message = error.what();
        }
        EXPECT_EQ(emulation::calls()["cudaMalloc"], 0U);
        EXPECT_NE(message.find("out of memory: training needs"), std::string::npos) << message;
        const std::vector<Config> changes = changes_of(message, config);
        EXPECT_EQ(changes.size(), 3U) << message;
        for (const Config& changed : changes) {
            EXPECT_NO_THROW(gpu::CudaBackend(changed, layout)) << message;
            // And it is the least of its kind that would.
            Config less = changed;
            if (less.train.batch < config.train.batch) less.train.batch *= 2;
            less.train.micro_batches = (less.train.micro_batches + 1) / 2;
            less.train.precision = Precision::tf32;
            EXPECT_THROW(gpu::CudaBackend(less, layout), RunError) << message;
            emulation::reset();
            emulation::set_free_memory(free);
        }
    }
}

// What the settings or the device do not have is not named.
TEST_F(DeviceMemory, WhatIsSaidToFitCanBeHad) {
    Config config;
    config.model.encoder_hidden = {512, 512, 512};
    config.train.batch = 40000;
    const auto message_of = [](const Config& too_large) {
        emulation::set_free_memory(std::size_t{500} << 20);
        try {
            const gpu::CudaBackend backend(too_large, ParameterLayout(too_large.model, kPixels));
        } catch (const RunError& error) {
            return std::string(error.what());
        }
        return std::string("made without memory");
    };
    Config whole_batches = config;
    whole_batches.objective.free_bits = 0.1;
    EXPECT_NE(message_of(config).find("would fit: train.micro_batches"), std::string::npos);
    EXPECT_EQ(message_of(whole_batches).find("micro_batches"), std::string::npos);
    EXPECT_NE(message_of(whole_batches).find("train.batch = "), std::string::npos);
    emulation::set_compute_capability(7, 5);
    const std::string old = message_of(config);
    EXPECT_EQ(old.find("bf16"), std::string::npos) << old;
    EXPECT_NE(old.find("train.batch = "), std::string::npos) << old;
}

TEST_F(DeviceMemory, WhereNothingFitsTheErrorSaysSo) {
    emulation::set_free_memory(std::size_t{70} << 20);
    const Config config = test::small_config();
    try {
        const gpu::CudaBackend backend(config, ParameterLayout(config.model, kPixels));
        FAIL() << "made without memory";
    } catch (const RunError& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find("no smaller batch would fit"), std::string::npos) << message;
    }
}

// What is free is not always what can be had.
TEST_F(DeviceMemory, ARefusedAllocationIsTheSameError) {
    emulation::fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    const Config config = test::small_config();
    EXPECT_THROW(gpu::CudaBackend(config, ParameterLayout(config.model, kPixels)), RunError);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "the error is left behind";
}

TEST_F(DeviceMemory, SeparateArraysComputeTheSame) {
    const Splits splits = test::small_splits(kExamples);
    const Config config = test::small_config();
    const ParameterLayout layout(config.model, kPixels);
    const auto trained = [&] {
        gpu::CudaBackend backend(config, layout);
        start(backend, config, layout, splits);
        use(backend, config);
        return backend.state().parameters;
    };
    const std::vector<float> together = trained();
    ASSERT_EQ(setenv(kSeparate, "1", 1), 0);
    emulation::reset();
    EXPECT_EQ(trained(), together);
    EXPECT_GT(emulation::calls()["cudaMalloc"], 30U);
}

// In one allocation, whatever the environment says outside.
TEST_F(DeviceMemory, PlacesAreAlignedAndApart) {
    gpu::DeviceArena arena("a test");
    const std::vector<std::size_t> sizes = {1, 256, 257, 4};
    std::vector<std::size_t> places;
    places.reserve(sizes.size());
    for (const std::size_t size : sizes) places.push_back(arena.reserve(size, "an array"));
    EXPECT_EQ(arena.bytes(), 256U + 256U + 512U + 256U);
    EXPECT_THROW((void)arena.at(places[0]), std::logic_error) << "before allocate";
    arena.allocate();
    auto* const base = static_cast<std::byte*>(arena.at(places[0]));
    EXPECT_EQ(arena.at(places[1]), base + 256);
    EXPECT_EQ(arena.at(places[2]), base + 512);
    EXPECT_EQ(arena.at(places[3]), base + 1024);
    EXPECT_THROW((void)arena.reserve(1, "an array"), std::logic_error) << "after allocate";
    EXPECT_THROW(arena.allocate(), std::logic_error) << "again";
}

TEST(DeviceArena, OfNothingNeedsNoMemory) {
    emulation::reset();
    gpu::DeviceArena arena("a test");
    const gpu::DeviceArray<float> none(arena, 0, "an array");
    arena.allocate();
    EXPECT_EQ(none.data(), nullptr);
    EXPECT_EQ(emulation::calls()["cudaMalloc"], 0U);
}

TEST(DeviceArena, SizesThatOverflowAreRefused) {
    gpu::DeviceArena arena("a test");
    constexpr std::size_t kHuge = std::size_t{1} << 62;
    EXPECT_THROW(gpu::DeviceArray<float>(arena, kHuge, "an array"), RunError);
    EXPECT_THROW((void)arena.reserve(kHuge, "an array"), RunError);
    for (int i = 0; i < 2; ++i) (void)arena.reserve(kHuge / 2, "an array");
    EXPECT_THROW((void)arena.reserve(1, "an array"), RunError) << "all of them together";
}

TEST(DeviceArena, SizesAreWrittenForPeople) {
    EXPECT_EQ(memory_text(0), "0.0 MiB");
    EXPECT_EQ(memory_text(std::size_t{1536} << 10), "1.5 MiB");
    EXPECT_EQ(memory_text(std::size_t{2560} << 20), "2.5 GiB");
}

}  // namespace
}  // namespace vae
