// The real program, as a user runs it, on a run that it trained: every command does what it says.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "host/checkpoint.h"
#include "host/config_file.h"
#include "host/npy.h"
#include "tests/cli_fixture.h"
#include "tests/run_program.h"

namespace vae {
namespace {

using testing::CliTest;
using testing::contains;
using testing::ProgramResult;

TEST_F(CliTest, ARunHasItsFilesAndEveryCommandReadsIt) {
    train_small_run();
    for (const char* name : {"config.toml", "metrics.jsonl", "checkpoint.safetensors",
                             "samples.png", "reconstructions.png"}) {
        EXPECT_TRUE(std::filesystem::is_regular_file(work() / "run" / name)) << name;
    }
    const ProgramResult evaluated = vae("evaluate run --json");
    ASSERT_EQ(evaluated.status, 0) << evaluated.err;
    const auto row = nlohmann::json::parse(evaluated.out);
    std::istringstream metrics(testing::text_of(work() / "run" / "metrics.jsonl"));
    std::string line;
    while (std::getline(metrics, line) && metrics.peek() != EOF) {
    }
    const auto last = nlohmann::json::parse(line);
    for (const char* key :
         {"split", "examples", "step", "recon", "kl", "elbo", "loss", "beta", "kl_is"}) {
        EXPECT_EQ(row[key], last[key]) << key;
    }
    EXPECT_EQ(vae("evaluate run/checkpoint.safetensors --split train").status, 0);
    EXPECT_EQ(row["latent"]["kl"].size(), 2U);
    EXPECT_FALSE(row.contains("log_px"));
    EXPECT_TRUE(contains(vae("info run").out, "encoder.mu.weight"));

    EXPECT_EQ(vae("sample run --count 5 --out s.npy --seed 3").status, 0);
    EXPECT_EQ(read_npy(work() / "s.npy").shape, (std::vector<std::size_t>{5, 8, 8}));
    EXPECT_EQ(vae("reconstruct run --count 7 --out r.png").status, 0);
    EXPECT_EQ(vae("encode run --data synthetic:bars --out z.npy --logvar v.npy").status, 0);
    EXPECT_EQ(read_npy(work() / "v.npy").shape, read_npy(work() / "z.npy").shape);
    EXPECT_EQ(read_npy(work() / "z.npy").shape, (std::vector<std::size_t>{1000, 2}));
    EXPECT_EQ(vae("decode run --latents z.npy --out d.npy").status, 0);
    EXPECT_EQ(vae("reconstruct run --count 1000 --out r.npy").status, 0);
    EXPECT_EQ(read_npy(work() / "r.npy").values, read_npy(work() / "d.npy").values);
}

TEST_F(CliTest, EvaluateEstimatesLogPx) {
    train_small_run();
    const std::string request = "evaluate run --importance-samples 60 --importance-examples 90";
    const ProgramResult shown = vae(request + " --log-px l.npy");
    ASSERT_EQ(shown.status, 0) << shown.err;
    for (const char* part : {"log p(x)", "over 90 examples", "60 draws each", "bound, k = 50",
                             "active units", "I(x;z)", "KL(q(z) || p(z))"}) {
        EXPECT_TRUE(contains(shown.out, part)) << part << "\n" << shown.out;
    }
    const auto log_px = nlohmann::json::parse(vae(request + " --json").out)["log_px"];
    EXPECT_EQ(log_px["draws"], 60);
    EXPECT_EQ(log_px["examples"], 90);
    ASSERT_EQ(log_px["bounds"].size(), 4U);
    EXPECT_GT(log_px["bounds"][3]["value"], log_px["bounds"][0]["value"]);
    const NpyArray file = read_npy(work() / "l.npy");
    ASSERT_EQ(file.shape, (std::vector<std::size_t>{90}));
    double sum = 0;
    for (const float value : std::get<std::vector<float>>(file.values)) sum += value;
    EXPECT_NEAR(sum / 90, log_px["value"].get<double>(), 1e-4);  // written as float
    const auto value_of = [&](const std::string& more) {
        return nlohmann::json::parse(vae(request + more + " --json").out)["log_px"]["value"];
    };
    EXPECT_EQ(value_of(""), log_px["value"]);
    EXPECT_EQ(value_of(" --seed 9"), value_of(" --seed 9"));
    EXPECT_NE(value_of(" --seed 9"), log_px["value"]);
}

// One draw of one example has no standard error, and says so.
TEST_F(CliTest, EvaluateHasADashWhereThereIsNoError) {
    train_small_run();
    const std::string request = "evaluate run --importance-samples 1 --importance-examples 1";
    const std::string text = vae(request).out;
    EXPECT_TRUE(contains(text, "± – over 1 example, ± – by the draws")) << text;
    EXPECT_FALSE(contains(text, "nan")) << text;
    EXPECT_TRUE(nlohmann::json::parse(vae(request + " --json").out)["log_px"]["monte_carlo_error"]
                    .is_null());
}

TEST_F(CliTest, EvaluateRefusesALossThatIsNotFinite) {
    std::vector<float> values(600 * 8);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7);
    values[100 * 8 + 3] = 3e38F;
    const std::size_t shape[] = {600, 8};
    write_npy(work() / "usual.npy", std::vector<float>(600 * 8, .5F), shape);
    write_npy(work() / "huge.npy", values, shape);
    ASSERT_EQ(vae("train --data usual.npy --likelihood gaussian --hidden 4 --latent 2 --steps 2 "
                  "--out run")
                  .status,
              0);
    for (const std::string more : {"", " --json", " --importance-samples 3 --log-px l.npy"}) {
        const ProgramResult result = vae("evaluate run --data huge.npy" + more);
        EXPECT_EQ(result.status, 1) << result.out;
        EXPECT_TRUE(contains(result.err, "recon is not finite")) << result.err;
        EXPECT_EQ(result.out, "");
    }
    EXPECT_FALSE(std::filesystem::exists(work() / "l.npy"));
}

TEST_F(CliTest, EncodeWritesAFullCovariance) {
    ASSERT_EQ(vae("train --data synthetic:bars --hidden 4 --latent 3 --steps 2 --posterior full "
                  "--out full")
                  .status,
              0);
    EXPECT_EQ(
        vae("encode full --data synthetic:bars --out z.npy --tril t.npy --logvar v.npy").status, 0);
    EXPECT_EQ(read_npy(work() / "t.npy").shape, (std::vector<std::size_t>{1000, 3}));
    EXPECT_TRUE(contains(vae("encode full --data synthetic:bars --out z.npy --logvar w.npy").err,
                         "add --tril FILE.npy"));
    train_small_run();
    EXPECT_TRUE(contains(vae("encode run --data synthetic:bars --out z.npy --tril w.npy").err,
                         "has a diagonal covariance"));
    EXPECT_FALSE(std::filesystem::exists(work() / "w.npy"));
}

TEST_F(CliTest, DecodingToValuesThatAreNotFiniteIsRefused) {
    ASSERT_EQ(
        vae("train --data synthetic:bars --likelihood poisson --hidden 4 --latent 2 --steps 2 "
            "--out counts")
            .status,
        0);
    const std::size_t shape[] = {2, 2};
    write_npy(work() / "z.npy", std::vector<float>{0, 0, 1e30F, 1e30F}, shape);
    const ProgramResult result = vae("decode counts --latents z.npy --out d.npy");
    EXPECT_EQ(result.status, 1);
    EXPECT_TRUE(contains(result.err, "what row 1 decodes to is not finite")) << result.err;
    EXPECT_FALSE(std::filesystem::exists(work() / "d.npy"));
}

TEST_F(CliTest, VarianceComparesTheEstimators) {
    train_small_run();
    const std::string request = "variance run --examples 20 --samples 3 --repeats 5";
    const ProgramResult shown = vae(request + " --out v.svg");
    ASSERT_EQ(shown.status, 0) << shown.err;
    EXPECT_TRUE(contains(shown.out, "score function, leave one out")) << shown.out;
    EXPECT_TRUE(contains(testing::text_of(work() / "v.svg"), "</svg>"));
    const auto object = nlohmann::json::parse(vae(request + " --json").out);
    EXPECT_EQ(object["examples"], 20);
    ASSERT_EQ(object["estimators"].size(), 9U);
    EXPECT_EQ(object["estimators"][5]["gradient"], "dreg");
    EXPECT_GT(object["estimators"][0]["encoder"]["variance"], 0);
}

TEST_F(CliTest, ConfigWrittenByARunMakesTheSameRun) {
    train_small_run();
    ASSERT_EQ(vae("train --config run/config.toml --out again").status, 0);
    const Checkpoint run = load_checkpoint(work() / "run" / "checkpoint.safetensors");
    const Checkpoint again = load_checkpoint(work() / "again" / "checkpoint.safetensors");
    EXPECT_EQ(to_toml(run.config), to_toml(again.config));
    EXPECT_EQ(run.state.step, again.state.step);
    EXPECT_EQ(run.state.parameters, again.state.parameters);
    EXPECT_EQ(run.state.moments, again.state.moments);
}

TEST_F(CliTest, WithAnAverageTheCommandsUseItAndSaySo) {
    const std::string train =
        "train --data synthetic:bars --hidden 8 --latent 2 --steps 30 --optimizer sgd "
        "--learning-rate 0.003 ";
    const std::string note = "the moving average of the parameters (train.ema = 0.9)";
    const auto trained = vae(train + "--set train.ema=0.9 --out run");
    ASSERT_EQ(trained.status, 0) << trained.err;
    EXPECT_TRUE(contains(trained.out, "held-out examples and pictures are of " + note));
    const auto plain = vae(train + "--out plain");
    ASSERT_EQ(plain.status, 0);
    EXPECT_FALSE(contains(plain.out, "average"));
    const auto run = load_checkpoint(work() / "run" / "checkpoint.safetensors").state;
    EXPECT_EQ(run.parameters,
              load_checkpoint(work() / "plain" / "checkpoint.safetensors").state.parameters);
    EXPECT_NE(run.ema, run.parameters);
    for (const char* command : {"evaluate run", "sample run --out s.npy",
                                "decode run --latents "
                                "z.npy --out d.npy",
                                "reconstruct run --out r.npy"}) {
        if (std::string(command).starts_with("decode")) {
            EXPECT_TRUE(contains(vae("encode run --data synthetic:bars --out z.npy").out, note));
        }
        const auto result = vae(command);
        EXPECT_EQ(result.status, 0) << command;
        EXPECT_TRUE(contains(result.out, "parameters: " + note)) << command << result.out;
    }
    // A run whose parameters are the average says the same without a word of it.
    Checkpoint averaged = load_checkpoint(work() / "plain" / "checkpoint.safetensors");
    averaged.state.parameters = run.ema;
    save_checkpoint(work() / "averaged", averaged);
    const auto json = [this](const std::string& name) {
        return nlohmann::json::parse(vae("evaluate " + name + " --json").out);
    };
    EXPECT_EQ(json("run")["elbo"], json("averaged")["elbo"]);
    EXPECT_NE(json("run")["elbo"], json("plain")["elbo"]);
    EXPECT_EQ(json("run")["parameters"], "ema");
    EXPECT_EQ(json("averaged")["parameters"], "raw");
}

TEST_F(CliTest, RunsWithoutAFolderAreNumbered) {
    const std::string train = "train --data synthetic:bars --hidden 8 --latent 2 --steps 1";
    ASSERT_EQ(vae(train).status, 0);
    ASSERT_EQ(vae(train + " --binarize").status, 0);
    EXPECT_TRUE(std::filesystem::exists(work() / "runs" / "synthetic-bars-1"));
    EXPECT_TRUE(contains(testing::text_of(work() / "runs" / "synthetic-bars-2" / "config.toml"),
                         "binarize = \"dynamic\""));
}

TEST_F(CliTest, CompareSaysOkAndADumpIsWritten) {
    const ProgramResult result = vae(
        "compare --data synthetic:bars --hidden 8 --latent 2 --backend auto --dump dump --json");
    EXPECT_EQ(result.status, 0) << result.err;
    const auto report = nlohmann::json::parse(result.out);
    EXPECT_TRUE(report["ok"]);
    EXPECT_FALSE(report["too_sensitive"]);
    EXPECT_GT(report["tensors"].size(), 20U);
    EXPECT_TRUE(std::filesystem::exists(work() / "dump"));
    const ProgramResult same =
        vae("compare --data synthetic:linear-gaussian --likelihood gaussian --hidden none "
            "--backend cpu --against cpu");
    EXPECT_EQ(same.status, 0) << same.err << same.out;
    EXPECT_TRUE(contains(same.out, " 0 outside their gates")) << same.out;
}

}  // namespace
}  // namespace vae
