// The plan that "auto" takes from the file of what was measured, and measuring it. Needs the
// emulation, for other GPUs and less memory.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "emulation.h"
#include "host/files.h"
#include "host/gpu/cuda_backend.h"
#include "host/gpu/device_arena.h"
#include "host/gpu/plan_cache.h"
#include "host/gpu/plan_tuning.h"
#include "host/gpu/tuned_device.h"
#include "tests/cuda_backend_cases.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using gpu::MeasuredPlan;

class KeptPlanTest : public ::testing::Test {
  protected:
    void SetUp() override {
        emulation::reset();
        ASSERT_EQ(setenv("XDG_CACHE_HOME", home_.path().c_str(), 1), 0);
    }
    void TearDown() override {
        ASSERT_EQ(setenv("XDG_CACHE_HOME", "/nowhere", 1), 0);
        emulation::reset();
    }

    // What counting finds is "cublas" in fp32 and "epilogue" in bf16.
    static Config config_of(Precision precision = Precision::fp32) {
        Config config = test::config_of(network());
        config.train.precision = precision;
        config.train.graph_steps = 2;
        return config;
    }
    static test::NetworkCase network() {
        return {.name = "relu", .encoder = {24}, .latent = 5, .decoder = {17, 24}, .batch = 16};
    }
    static ParameterLayout layout(const Config& config) { return {config.model, network().pixels}; }
    static const Splits& splits() {
        static const Splits made = test::make_splits(network());
        return made;
    }

    // Of steps of this configuration, whose precision is not automatic.
    static void keep(const Config& config, FusionPlan plan) {
        const auto file = gpu::save_plan(config, layout(config), config.train.precision, {plan, 3});
        EXPECT_EQ(file, gpu::tuning_file_path());
    }
    static std::string plan_of(const Config& config) {
        return gpu::CudaBackend(config, layout(config)).plan();
    }
    static Config with_plan(Config config, FusionPlan plan) {
        config.train.plan = plan;
        return config;
    }
    void forget() const { std::filesystem::remove_all(home_ / "vae"); }

    testing::TemporaryFolder home_;
};

TEST_F(KeptPlanTest, AutoTakesWhatIsKept) {
    for (const Precision precision : {Precision::fp32, Precision::bf16}) {
        const Config config = config_of(precision);
        const std::string counted = precision == Precision::bf16 ? "epilogue" : "cublas";
        EXPECT_EQ(plan_of(config), counted);
        for (const FusionPlan plan :
             {FusionPlan::fused, FusionPlan::epilogue, FusionPlan::cublas}) {
            keep(config, plan);
            EXPECT_EQ(plan_of(config), name_of(plan));
            EXPECT_EQ(gpu::CudaBackend(config, layout(config), gpu::AutoPlan::counted).plan(),
                      counted);
        }
        keep(config, FusionPlan::automatic);
        EXPECT_EQ(plan_of(config), counted);
    }
    const auto kept = nlohmann::json::parse(read_file(*gpu::tuning_file_path()));
    EXPECT_EQ(kept.at("plans").size(), 2U) << "an entry for each precision";
}

TEST_F(KeptPlanTest, APlanThatIsSetIsTaken) {
    const Config config = config_of();
    keep(config, FusionPlan::fused);
    for (const FusionPlan plan : {FusionPlan::cublas, FusionPlan::epilogue}) {
        EXPECT_EQ(plan_of(with_plan(config, plan)), name_of(plan));
    }
}

// As if the plan had been set: memory is reserved for it, and bits are the same.
TEST_F(KeptPlanTest, ItIsAsIfThePlanWereSet) {
    const Config config = config_of(Precision::bf16);
    const std::size_t counted = gpu::CudaBackend(config, layout(config)).device_bytes();
    const auto parameters_of = [](const Config& of) {
        gpu::CudaBackend backend(of, layout(of));
        backend.set_data(splits());
        backend.set_state(test::initial_state(layout(of), of));
        backend.train({.batch = of.train.batch, .schedule = {{1e-3, 1}}, .part = {.count = 64}});
        return std::pair(backend.state().parameters, backend.device_bytes());
    };
    for (const FusionPlan plan : {FusionPlan::cublas, FusionPlan::fused}) {
        keep(config, plan);
        const auto kept = parameters_of(config);
        EXPECT_EQ(kept, parameters_of(with_plan(config, plan))) << name_of(plan);
        EXPECT_LT(kept.second, counted) << "nobody needs bits of ReLU";
    }
}

TEST_F(KeptPlanTest, OtherStepsAreCounted) {
    const Config config = config_of();
    std::vector<Config> others(11, config);
    others[0].train.batch = 17;
    others[1].train.micro_batches = 2;
    others[2].objective.samples = 2;
    others[3].model.encoder_hidden = {23};
    others[4].model.decoder_hidden = {24, 17};
    others[5].model.activation = Activation::tanh;
    others[6].train.precision = Precision::tf32;
    others[7].train.batch = 8;  // in the encoder alone
    others[7].objective.samples = 2;
    // What plan `fused` has of the heads and of the output.
    others[8].objective.kl = KlTerm::sampled;
    others[9].model.likelihood = Likelihood::poisson;
    others[10].objective = {.bound = Bound::iwae, .kl = KlTerm::sampled};
    for (const Config& other : others) keep(other, FusionPlan::fused);
    EXPECT_EQ(plan_of(config), "cublas");
    for (const Config& other : others) EXPECT_EQ(plan_of(other), "fused");
    // As far as hidden layers see them these steps are the same.
    Config same = config;
    same.train.learning_rate = 1;
    same.train.batch = 32;
    same.train.micro_batches = 2;
    keep(config, FusionPlan::epilogue);
    EXPECT_EQ(plan_of(same), "epilogue");
}

TEST_F(KeptPlanTest, OtherGpusCount) {
    const Config config = config_of();
    emulation::set_compute_capability(8, 0);
    keep(config, FusionPlan::fused);
    emulation::set_compute_capability(9, 0);
    EXPECT_EQ(plan_of(config), "cublas");
    keep(config, FusionPlan::epilogue);
    EXPECT_EQ(plan_of(config), "epilogue");
    emulation::set_compute_capability(8, 0);
    EXPECT_EQ(plan_of(config), "fused");
}

TEST_F(KeptPlanTest, WhatCannotBeHadIsCounted) {
    emulation::set_compute_capability(7, 5);
    const Config config = config_of();
    keep(config, FusionPlan::fused);
    EXPECT_EQ(plan_of(config), "cublas");
    Config tanh = config;
    tanh.model.activation = Activation::tanh;
    keep(tanh, FusionPlan::epilogue);
    EXPECT_EQ(plan_of(tanh), "cublas");
}

TEST_F(KeptPlanTest, AnEntryThatIsNotUnderstoodDoesNoHarm) {
    const Config config = config_of();
    keep(config, FusionPlan::fused);
    const auto good = nlohmann::ordered_json::parse(read_file(*gpu::tuning_file_path()));
    const auto write = [](const nlohmann::ordered_json& file) {
        write_file_atomically(*gpu::tuning_file_path(), std::string_view(file.dump()));
    };
    for (const char* plan : {"3", "null", "\"quick\"", "[\"fused\"]", "\"\""}) {
        auto file = good;
        file["plans"][0]["plan"] = nlohmann::ordered_json::parse(plan);
        write(file);
        EXPECT_EQ(plan_of(config), "cublas") << plan;
        file["plans"].push_back(good["plans"][0]);
        write(file);
        EXPECT_EQ(plan_of(config), "fused") << plan;
        file["plans"] = {good["plans"][0], file["plans"][0]};
        write(file);
        EXPECT_EQ(plan_of(config), "fused") << plan;
    }
    auto file = good;
    file["plans"][0].erase("plan");
    write(file);
    EXPECT_EQ(plan_of(config), "cublas");
    for (const char* text : {"{\"plans\": 3}", "{\"plans\": [3, null, {}, []]}", "[]", "no json"}) {
        write_file_atomically(*gpu::tuning_file_path(), std::string_view(text));
        EXPECT_EQ(plan_of(config), "cublas") << text;
        keep(config, FusionPlan::fused);
        EXPECT_EQ(plan_of(config), "fused") << "written over " << text;
    }
}

TEST_F(KeptPlanTest, WithinTwoPercentThePlanOfFewerSurprisesWins) {
    using enum FusionPlan;
    const auto kept = [](const std::vector<MeasuredPlan>& measured) {
        return gpu::plan_to_keep(measured).plan;
    };
    EXPECT_EQ(kept({{cublas, 100}, {automatic, 99}, {fused, 98.1}}), cublas);
    EXPECT_EQ(kept({{cublas, 101}, {automatic, 99}, {fused, 98.1}}), automatic);
    EXPECT_EQ(kept({{cublas, 101}, {automatic, 101}, {epilogue, 99}, {fused, 98.1}}), fused);
    EXPECT_EQ(kept({{cublas, 101}, {epilogue, 98.1}, {fused, 99}}), epilogue);
    EXPECT_EQ(kept({{cublas, 50}, {fused, 99}}), cublas);
    EXPECT_THROW((void)kept({}), std::invalid_argument);
}

TEST_F(KeptPlanTest, TuningKeepsThePlanThatItReports) {
    for (const Precision precision : {Precision::fp32, Precision::bf16}) {
        const Config config = config_of(precision);
        const TuningReport report = gpu::tune_run(config, layout(config), splits());
        EXPECT_FALSE(report.products.empty());
        // What counting finds is one of the others here, measured once.
        ASSERT_EQ(report.plans.size(), 3U);
        const std::vector<std::string> names = {"cublas", "epilogue", "fused"};
        std::string kept;
        for (std::size_t i = 0; i < names.size(); ++i) {
            const TunedPlan& plan = report.plans[i];
            EXPECT_EQ(plan.plan, names[i]);
            EXPECT_EQ(plan.problem, "");
            EXPECT_GT(plan.microseconds, 0);
            EXPECT_EQ(plan.is_counted,
                      plan.plan == (precision == Precision::bf16 ? "epilogue" : "cublas"));
            if (plan.is_kept) kept += plan.plan;
        }
        EXPECT_EQ(plan_of(config), kept);
        forget();
    }
}

TEST_F(KeptPlanTest, TuningOfASetPlanMeasuresItsProductsAlone) {
    const Config config = with_plan(config_of(), FusionPlan::epilogue);
    const TuningReport report = gpu::tune_run(config, layout(config), splits());
    EXPECT_FALSE(report.products.empty());
    EXPECT_TRUE(report.plans.empty());
    EXPECT_EQ(gpu::kept_plan(config, layout(config), config.train.precision), std::nullopt);
}

// Without hidden layers there are the heads and the output; without a plan that has them inside,
// nothing to choose from.
TEST_F(KeptPlanTest, TuningMeasuresWhatDiffers) {
    Config linear = config_of();
    linear.model.encoder_hidden = linear.model.decoder_hidden = {};
    const auto plans_of = [](const Config& config) {
        std::vector<std::string> plans;
        for (const TunedPlan& plan : gpu::tune_run(config, layout(config), splits()).plans) {
            plans.push_back(plan.plan);
        }
        return plans;
    };
    EXPECT_EQ(plans_of(linear), (std::vector<std::string>{"cublas", "fused"}));
    linear.objective.bound = Bound::iwae;
    EXPECT_EQ(plans_of(linear), std::vector<std::string>{"cublas"});
}

// What a plan needs more than another is no reason to give up, nor to take it.
TEST_F(KeptPlanTest, APlanThatFailsIsReportedAndNotKept) {
    Config config = config_of();
    config.model.encoder_hidden = {512};  // whose bits are more than what arenas are rounded to
    const std::size_t bytes =
        gpu::CudaBackend(with_plan(config, FusionPlan::cublas), layout(config)).device_bytes();
    emulation::set_free_memory(bytes + gpu::DeviceArena::kHeadroom);
    EXPECT_THROW((void)plan_of(config), RunError);
    const TuningReport report = gpu::tune_run(config, layout(config), splits());
    ASSERT_EQ(report.plans.size(), 4U);
    for (const TunedPlan& plan : report.plans) {
        const bool has_bits = plan.plan == "auto" || plan.plan == "epilogue";
        EXPECT_EQ(plan.problem.find("out of memory") != std::string::npos, has_bits) << plan.plan;
        EXPECT_FALSE(has_bits && plan.is_kept);
    }
    EXPECT_NE(plan_of(config), "epilogue") << "it fits now";
}

}  // namespace
}  // namespace vae
