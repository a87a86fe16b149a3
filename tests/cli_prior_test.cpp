// The real program with a learned prior.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/checkpoint.h"
#include "host/npy.h"
#include "host/pictures.h"
#include "host/prior_sampler.h"
#include "tests/cli_fixture.h"

namespace vae {
namespace {

using testing::CliTest;
using testing::contains;
using testing::ProgramResult;

// Five samples, made of the average of the parameters in all their steps.
std::vector<float> samples_of_the_average(const std::filesystem::path& path) {
    const Checkpoint checkpoint = load_checkpoint(path);
    EXPECT_NE(checkpoint.state.ema, checkpoint.state.parameters);
    const Config& config = checkpoint.config;
    const auto backend = make_cpu_backend(config, checkpoint.layout());
    backend->set_state(checkpoint.state);
    const PriorSampler prior(config.model, checkpoint.layout(), checkpoint.state.ema, *backend);
    return prior_samples(*backend, prior, config.model.latent, config.train.seed, 5);
}

// Every command of a run whose prior is learned.
TEST_F(CliTest, ALearnedPriorIsTrainedResumedAndDrawnFrom) {
    for (const std::string prior : {"mixture", "vamp"}) {
        const std::string train = fmt::format(
            "train --backend cpu --data synthetic:bars --hidden 9 --latent 2 --set train.ema=0.5 "
            "--set model.prior_components=6 --prior {0} --out {0} --steps ",
            prior);
        const ProgramResult trained = vae(train + "20");
        ASSERT_EQ(trained.status, 0) << trained.err;
        EXPECT_TRUE(contains(trained.out, "kl is estimated from draws")) << trained.out;
        const ProgramResult evaluated = vae("evaluate " + prior + " --json");
        ASSERT_EQ(evaluated.status, 0) << evaluated.err;
        EXPECT_EQ(nlohmann::json::parse(evaluated.out)["kl_is"], "estimated");
        EXPECT_TRUE(contains(vae("evaluate " + prior).out, "kl is estimated from draws"));
        const std::string info = vae("info " + prior).out;
        EXPECT_TRUE(contains(info, "prior = \"" + prior + "\"")) << info;
        EXPECT_TRUE(contains(info, prior == "vamp" ? "prior.pseudo_inputs" : "prior.logits"));
        EXPECT_EQ(vae("sample " + prior + " --count 70 --out many.npy").status, 0);
        EXPECT_EQ(vae("sample " + prior + " --count 5 --out few.npy").status, 0);
        const auto many = std::get<std::vector<float>>(read_npy(work() / "many.npy").values);
        const auto few = std::get<std::vector<float>>(read_npy(work() / "few.npy").values);
        EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
        EXPECT_EQ(few, samples_of_the_average(work() / prior / "checkpoint.safetensors"));
        // A run that stopped goes on with the same bits.
        ASSERT_EQ(vae(train + "30 --resume").status, 0);
        const std::string whole = "whole_" + prior;
        ASSERT_EQ(vae(fmt::format("train --config {}/config.toml --out {}", prior, whole)).status,
                  0);
        const Checkpoint resumed = load_checkpoint(work() / prior / "checkpoint.safetensors");
        const Checkpoint at_once = load_checkpoint(work() / whole / "checkpoint.safetensors");
        EXPECT_EQ(resumed.state.step, 30U);
        EXPECT_EQ(resumed.state.parameters, at_once.state.parameters);
        EXPECT_EQ(resumed.state.ema, at_once.state.ema);
    }
}

}  // namespace
}  // namespace vae
