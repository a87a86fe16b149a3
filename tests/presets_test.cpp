// The presets: they are settings that can be used, and say what their papers do.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "host/config_file.h"
#include "host/schedule.h"
#include "host/settings.h"
#include "tests/cli_fixture.h"

namespace vae {
namespace {

const std::vector<std::string> kPresets = {"burda2016-iwae", "burda2016-vae", "fashion-vae",
                                           "kingma2013", "pytorch-example"};

std::filesystem::path path_of(const std::string& name) {
    return std::filesystem::path(VAE_PRESETS) / (name + ".toml");
}

Config config_of(const std::string& name) {
    ConfigBuilder builder;
    builder.read_file(path_of(name));
    return builder.finish();
}

TEST(Presets, TheListIsWhole) {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(VAE_PRESETS)) {
        EXPECT_EQ(entry.path().extension(), ".toml") << entry.path();
        found.push_back(entry.path().stem());
    }
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, kPresets);
}

TEST(Presets, BurdasPassesAreThreeToTheI) {
    for (const char* name : {"burda2016-vae", "burda2016-iwae"}) {
        const Config config = config_of(name);
        const Schedule schedule(config.train, 60000);
        EXPECT_EQ(schedule.total_steps(), 3280U * 3000U);
        EXPECT_DOUBLE_EQ(schedule.at(0).learning_rate, 1e-3);
        // The eighth and last stretch is of 3^7 passes.
        EXPECT_NEAR(schedule.at((3280 - 2187) * 3000 - 1).learning_rate,
                    1e-3 * std::pow(10, -6. / 7), 1e-12);
        EXPECT_NEAR(schedule.at(schedule.total_steps() - 1).learning_rate, 1e-4, 1e-12);
        EXPECT_EQ(config.train.adam_epsilon, 1e-4);
    }
    EXPECT_EQ(config_of("burda2016-iwae").objective.samples, 50U);
}

TEST(Presets, BetaOfFashionVaeRisesOverAHundredEpochs) {
    const Schedule schedule(config_of("fashion-vae").train, 50000);
    EXPECT_NEAR(schedule.at(50 * 500).beta, .5, 1e-3);
    EXPECT_EQ(schedule.at(100 * 500).beta, 1);
}

using PresetsTest = testing::CliTest;
using testing::ProgramResult;

TEST_F(PresetsTest, EachTrains) {
    for (const std::string& name : kPresets) {
        const ProgramResult result =
            vae("train --backend cpu --steps 3 --data synthetic:bars --set data.validation=50 "
                "--out " +
                name + " --config " + path_of(name).string());
        EXPECT_EQ(result.status, 0) << name << ": " << result.err;
    }
}

}  // namespace
}  // namespace vae
