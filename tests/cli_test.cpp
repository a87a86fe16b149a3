// The real program, as a user runs it: each bad request ends in one line, status 1 or 2, and no
// file; each good one does what it says.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "host/checkpoint.h"
#include "host/files.h"
#include "host/npy.h"
#include "host/run_folder.h"
#include "tests/cli_fixture.h"
#include "tests/data_files.h"
#include "tests/error_message.h"
#include "tests/run_program.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using testing::Arguments;
using testing::BadRequest;
using testing::CliTest;
using testing::contains;
using testing::Program;
using testing::ProgramResult;
using testing::put_file;
using testing::words;

TEST_F(CliTest, WrongOptionsAreRefused) {
    expect_refused({
        {"", 2, "which command?"},
        {"trian", 2, "did you mean train?"},
        {"--nonsense", 2, "--nonsense"},
        {"train --lernrate 3", 2, "unknown option --lernrate"},
        {"train --epoch 3", 2, "did you mean --epochs? See vae train --help"},
        {"train --bogus", 2, "unknown option --bogus; see vae train --help"},
        {"train --out=", 2, "--out: the value is empty"},
        {"train surplus", 2, "argument surplus was not expected"},
        {"train --epochs 1 --steps 1", 2, "excludes"},
        {"train --epochs", 2, "--epochs"},
        {"train --precision fp16", 2, "--precision: train.precision must be"},
        {"train --data synthetic:bars --precision tf32 --out run", 2, "the CPU computes in fp32"},
        {"compare --data synthetic:bars --backend cpu --precision bf16", 2,
         "train.precision = \"bf16\""},
        {"train --plan fastest", 2,
         "--plan: train.plan must be one of auto, cublas, epilogue, fused"},
        {"train --plan epilogue --activation tanh", 2, "model.activation is \"tanh\""},
        {"train --data synthetic:bars --plan epilogue --out run", 2, "the CPU has one way"},
        {"train --data synthetic:bars --plan fused --out run", 2, "the CPU has one way"},
        {"devices --batch 5", 2, "--tune"},
        {"devices --tune", 1, "--tune: "},
        {"train --latent 0", 2, "--latent: model.latent must be an integer from 1"},
        {"train --latent 9999999999999999999999", 2, "model.latent"},
        {"train --hidden 8,0", 2, "model.encoder_hidden"},
        {"train --batch -1", 2, "train.batch"},
        {"train --seed x", 2, "train.seed"},
        {"train --learning-rate 0", 2, "train.learning_rate"},
        {"train --beta nan", 2, "train.beta"},
        {"train --activation rely", 2, "relu, tanh, softplus, gelu, silu, gated"},
        {"train --likelihood cauchy", 2, "bernoulli, gaussian"},
        {"train --prior gaussian", 2, "one of normal, mixture, vamp"},
        {"train --set model.prior_components=0", 2, "from 1 to 65536"},
        {"train --posterior banded", 2, "diagonal, full"},
        {"train --binarize maybe", 2, "none, dynamic, fixed"},
        {"train --data-placement disk", 2, "one of auto, device, streamed"},
        {"train --set model.latnet=5", 2, "did you mean model.latent?"},
        {"train --set model.sigma", 2, "key=value"},
        {"train --set train.schedule=linear", 2, "one of constant, step, cosine, burda"},
        {"train --set train.schedule=cosine --set train.learning_rate_final=1", 2,
         "must be at most train.learning_rate"},
        {"train --set train.beta_schedule=linear --beta 0", 2, "nothing to rise to"},
        {"train --data synthetic:bars --set train.schedule=burda --epochs 4000", 2,
         "ends after 3280 passes"},
        {"compare --data synthetic:bars --set train.schedule=burda --set train.epochs=4000", 2,
         "ends after 3280 passes"},
        {"train --set model.logvar_min=11", 2, "must be below"},
        {"train --backend tpu", 2, "tpu"},
        {"train --backend cpu-double", 2, "cpu-double"},
        {"train --resume", 2, "--out"},
        {"train --config nothing.toml", 2, "nothing.toml"},
        {"train --config .", 2, "cannot read .: Is a directory"},
        {"train --seed 010", 2, "train.seed must be an integer of at least 0, not 010"},
        {"compare --steps 0", 2, "--steps"},
        {"compare --backend tpu", 2, "tpu not in {auto,cuda,cpu,cpu-double}"},
        {"compare --data synthetic:bars --against cuda", 1, "--against cuda: "},
        {"evaluate", 2, "RUN is required"},
        {"info", 2, "RUN is required"},
    });
}

TEST_F(CliTest, PlacesThatCannotBeWrittenAreRefused) {
    put_file(work() / "file", "");
    std::filesystem::create_directory(work() / "full");
    put_file(work() / "full" / "something", "");
    const std::string train = "train --data synthetic:bars --hidden 8 --latent 2 --steps 1 --out ";
    expect_refused({
        {train + "file", 2, "there is a file of that name"},
        {train + "file/below", 2, "file/below"},
        {train + "full", 2, "not empty"},
        {train + "/proc/nowhere", 2, "/proc/nowhere"},
        {train + "/dev/null/run", 2, "/dev/null/run"},
        {train + "new --backend cuda", 1, "--backend cuda: "},
        {"compare --data synthetic:bars --backend cuda", 1, "--backend cuda: "},
        {"compare --data synthetic:bars --hidden 8 --latent 2 --backend cpu --against cpu "
         "--learning-rate 1e38 --steps 3",
         1, "cpu: the gradient of encoder.0.weight is not finite in step 2; lower"},
        {"compare --data synthetic:bars --hidden 8 --latent 2 --dump file/below", 2, "file/below"},
    });
}

// Before any work: there is not even a word about the backends.
TEST_F(CliTest, APlaceForTheDumpIsLookedAtFirst) {
    for (const char* place : {"nowhere/dump", "/proc/self/dump/dump", "."}) {
        const ProgramResult result =
            vae(std::string("compare --data synthetic:bars --backend cpu --dump ") + place);
        EXPECT_EQ(result.status, 2) << place;
        EXPECT_TRUE(contains(result.err, "vae: error: cannot write " + std::string(place)));
        EXPECT_EQ(result.out, "");
    }
}

#ifndef __SANITIZE_ADDRESS__  // which needs terabytes of addresses
// A million images of 28 x 28 take more memory than there is here: the picture is refused before
// they are made.
TEST_F(CliTest, APictureThatIsTooLargeIsRefusedFirst) {
    put_file(work() / "x.idx", testing::idx({2, 28, 28}, std::string(2 * 28 * 28, '\0')));
    ASSERT_EQ(vae("train --data x.idx --hidden 8 --latent 2 --steps 1 --out run").status, 0);
    const std::string limit = "ulimit -v 500000";
    EXPECT_EQ(shell("sample run --count 1000000 --out s.png >out 2>error", limit), 2);
    EXPECT_TRUE(contains(testing::text_of(work() / "error"), "is too large for PNG"));
    EXPECT_EQ(shell("sample run --count 1000000 --out s.npy >out 2>error", limit), 1);
    EXPECT_TRUE(contains(testing::text_of(work() / "error"), "--count 1000000: too many samples"));
}
#endif

TEST_F(CliTest, WrongRunsAreRefused) {
    train_small_run();
    const std::string whole = read_file(work() / "run" / "checkpoint.safetensors");
    put_file(work() / "cut", whole.substr(0, whole.size() / 2));
    put_file(work() / "header", whole.substr(0, 6));
    put_file(work() / "text", "this is no checkpoint, and long enough for a header");
    std::string other = whole;
    const std::size_t at = other.find("encoder_hidden = [8]");
    ASSERT_NE(at, std::string::npos);
    put_file(work() / "other", other.replace(at, 20, "encoder_hidden = [9]"));
    std::filesystem::create_directory(work() / "folder");
    const std::vector<float> codes = {0, 1, 2, 3, 4, 5};
    const std::size_t three[] = {2, 3};
    write_npy(work() / "three.npy", codes, three);
    const std::vector<float> bad = {0, std::nanf("")};
    const std::size_t two[] = {1, 2};
    write_npy(work() / "nan.npy", bad, two);

    std::vector<BadRequest> requests = {
        {"train --data synthetic:bars --out run", 2, "--resume"},
        {"train --resume --out nowhere", 2, "nowhere: there is no such run folder"},
        {"train --resume --out folder", 2, "folder: the folder holds no checkpoint"},
        {"train --resume --out run/checkpoint.safetensors", 2, "name the run's folder"},
        {"train --resume --out run --latent 3", 2, "model.latent = 2, not 3"},
        {"train --resume --out run --data synthetic:linear-gaussian", 2, "outside [0,1]"},
        {"evaluate run --split tset", 2, "tset"},
        {"evaluate run --split validation", 2, "validation"},
        {"evaluate run --data synthetic:linear-gaussian", 2, "outside [0,1]"},
        {"evaluate run --backend cuda", 1, "--backend cuda: "},
        {"variance run --samples 1", 2, "--samples"},
        {"variance run --repeats 1", 2, "--repeats"},
        {"variance run --out v.png", 2, "must end in .svg"},
        {"evaluate run --importance-samples 0", 2, "--importance-samples"},
        {"evaluate run --importance-samples 99999999", 2, "16777216"},
        {"evaluate run --importance-examples 5", 2, "needs --importance-samples"},
        {"evaluate run --log-px l.npy", 2, "--log-px needs --importance-samples"},
        {"evaluate run --importance-samples 2 --log-px l.txt", 2, "must end in .npy"},
        {"evaluate run --importance-samples 2 --log-px run/checkpoint.safetensors", 2, "--log-px"},
        {"sample run --count 0 --out s.png", 2, "--count"},
        {"sample run --count 4 --out s.jpg", 2, ".png or .npy"},
        {"sample run --count 4", 2, "--out is required"},
        {"sample run --count 4 --out text/s.png", 2, "text/s.png"},
        {"reconstruct run --out nowhere/r.png", 2, "nowhere/r.png"},
        {"encode run --data synthetic:bars --out codes.png", 2, ".npy"},
        {"encode run --data synthetic:linear-gaussian --out codes.npy", 2, "8x8x1"},
        {"decode run --latents three.npy --out d.png", 2, "[2, 3]"},
        {"decode run --latents nan.npy --out d.png", 2, "[0, 1] is not finite"},
        {"decode run --latents nowhere.npy --out d.png", 2, "nowhere.npy"},
    };
    for (const char* run : {"nowhere", "folder", "cut", "header", "text", "other"}) {
        requests.push_back({std::string("info ") + run, 2, run});
        requests.push_back({std::string("evaluate ") + run, 2, run});
        requests.push_back({std::string("sample ") + run + " --out s.png", 2, run});
    }
    expect_refused(requests);
}

TEST_F(CliTest, AFullDiskUnderStandardOutputIsAnError) {
    const ProgramResult result = testing::run_program(work(), {"devices"}, "/dev/full");
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.err.rfind("vae: error: ", 0), 0U) << result.err;
}

TEST_F(CliTest, StandardStreamsMayBeFullOrClosed) {
    struct Case {
        const char* command;
        int status;
    };
    for (const auto& [command, status] : {Case{"nonsense 2>/dev/full", 2},
                                          {"nonsense 2>&-", 2},
                                          {"nonsense <&- >&- 2>&-", 2},
                                          {"--help >/dev/full 2>&1", 1},
                                          {"--version >/dev/full 2>&1", 1},
                                          {"train --help >/dev/full 2>&1", 1},
                                          {"--help >&-", 0}}) {
        EXPECT_EQ(shell(command), status) << command;
    }
    const std::string train =
        "train --data synthetic:bars --hidden 8 --latent 2 --steps 1 --out run ";
    for (const std::string closed : {">&-", ">/dev/null 2>&-", ">/dev/null <&-"}) {
        std::filesystem::remove_all(work() / "run");
        EXPECT_EQ(shell(train + closed), 0) << closed;
        std::istringstream metrics(testing::text_of(work() / "run" / "metrics.jsonl"));
        std::size_t rows = 0;
        for (std::string line; std::getline(metrics, line); ++rows) {
            EXPECT_TRUE(nlohmann::json::accept(line)) << closed << ": " << line;
        }
        EXPECT_EQ(rows, 2U) << closed;
    }
}

TEST_F(CliTest, EmptyValuesAreRefused) {
    train_small_run();
    const auto before = snapshot();
    for (const Arguments& arguments : {Arguments{"train", "--out", ""},
                                       {"train", "--config", ""},
                                       {"train", "--data", ""},
                                       {"train", "--hidden", ""},
                                       {"train", "--binarize", ""},
                                       {"evaluate", "run", "--data", ""},
                                       {"evaluate", "run", "--split="},
                                       {"sample", "run", "--out", ""},
                                       {"info", ""},
                                       {""}}) {
        const ProgramResult result = testing::run_program(work(), arguments);
        EXPECT_EQ(result.status, 2) << arguments.front();
        EXPECT_TRUE(contains(result.err, "the value is empty")) << result.err;
    }
    EXPECT_EQ(snapshot(), before);
}

TEST_F(CliTest, AnErrorHasNoControlCharacters) {
    const ProgramResult result = testing::run_program(work(), {"info", "a\x1b[31m\r\n\tb"});
    EXPECT_TRUE(contains(result.err, "a [31m   b")) << result.err;
}

TEST_F(CliTest, HiddenMirrorsWhateverWasGivenBefore) {
    put_file(work() / "config.toml", "model.decoder_hidden = [5]\n");
    const std::string train = "train --config config.toml --data synthetic:bars --steps 1 ";
    for (const char* hidden : {"8,4", "[8,4]"}) {
        std::filesystem::remove_all(work() / "run");
        ASSERT_EQ(vae(train + "--out run --hidden " + hidden).status, 0) << hidden;
        const std::string config = testing::text_of(work() / "run" / "config.toml");
        EXPECT_TRUE(contains(config, "encoder_hidden = [8, 4]")) << config;
        EXPECT_TRUE(contains(config, "decoder_hidden = [4, 8]")) << config;
    }
    for (const char* hidden : {"none", "[]"}) {
        std::filesystem::remove_all(work() / "run");
        ASSERT_EQ(vae(train + "--out run --beta .5 --hidden " + hidden).status, 0) << hidden;
        EXPECT_TRUE(
            contains(testing::text_of(work() / "run" / "config.toml"), "decoder_hidden = []"));
    }
}

TEST_F(CliTest, ResumingAFinishedRunWritesThePicturesItLacks) {
    train_small_run();
    const auto whole = snapshot();
    const std::filesystem::path run = work() / "run";
    std::filesystem::remove(run / "samples.png");
    put_file(run / "reconstructions.png", "of an earlier end");
    std::filesystem::last_write_time(
        run / "reconstructions.png",
        std::filesystem::last_write_time(run / "checkpoint.safetensors") - std::chrono::hours(1));
    const ProgramResult completed = vae("train --resume --out run");
    EXPECT_EQ(completed.status, 0) << completed.err;
    EXPECT_TRUE(contains(completed.out, "nothing left to do")) << completed.out;
    EXPECT_EQ(snapshot(), whole);
    EXPECT_FALSE(contains(vae("train --resume --out run").out, "pictures"));
}

TEST_F(CliTest, AResumeThatFailsChangesNothing) {
    train_small_run();
    std::filesystem::remove(work() / "run" / "metrics.jsonl");
    std::filesystem::create_directory(work() / "run" / "metrics.jsonl");
    expect_refused({{"train --resume --out run --steps 9", 2, "metrics.jsonl: Is a directory"}});
    const ProgramResult info = vae("info run");
    EXPECT_EQ(info.status, 0) << info.err;
    EXPECT_TRUE(contains(info.out, "no metrics: cannot read run/metrics.jsonl")) << info.out;
    EXPECT_TRUE(contains(info.out, " kB\n")) << info.out;
}

TEST_F(CliTest, ARunThatIsStillTrainingIsNotResumed) {
    train_small_run();
    const RunLock lock(work() / "run");
    expect_refused({{"train --resume --out run --steps 9", 2, "run: the folder is in use"}});
}

TEST_F(CliTest, ASignalSavesTheRunAndItGoesOn) {
    const Program run(work(), words("train --data synthetic:bars --hidden 8 --latent 2 --out run "
                                    "--steps 100000000"));
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!contains(run.output_so_far(), "epoch 1/") &&
           std::chrono::steady_clock::now() < patience) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    run.raise(SIGTERM);
    const ProgramResult stopped = run.wait();
    EXPECT_EQ(stopped.status, 1);
    EXPECT_TRUE(contains(stopped.err, "vae train --resume --out run")) << stopped.err;
    const auto checkpoint = work() / "run" / "checkpoint.safetensors";
    const std::uint64_t step = load_checkpoint(checkpoint).state.step;
    EXPECT_GT(step, 0U);
    const std::string more = std::to_string(step + 3);
    const ProgramResult resumed = vae("train --resume --out run --steps " + more);
    EXPECT_EQ(resumed.status, 0) << resumed.err;
    EXPECT_EQ(load_checkpoint(checkpoint).state.step, step + 3);
    const ProgramResult again = vae("train --resume --out run");
    EXPECT_EQ(again.status, 0) << again.err;
    EXPECT_TRUE(contains(again.out, "nothing left to do")) << again.out;
}

TEST_F(CliTest, HelpAndVersionAreFine) {
    EXPECT_TRUE(contains(vae("--help").out, "reconstruct"));
    EXPECT_TRUE(contains(vae("--version").out, "vae 0."));
    EXPECT_TRUE(contains(vae("train --help").out, "model.logvar_min = -10.0"));
    EXPECT_TRUE(contains(vae("devices").out, "cuda  not usable: "));
}

// Of variables by which cuBLAS computes in another precision; not where it computes nothing.
TEST_F(CliTest, AnEnvironmentThatChangesPrecisionsIsSaid) {
    constexpr std::array kVariables = {"NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION",
                                       "CUBLAS_EMULATION_STRATEGY"};
    for (const char* variable : kVariables) ASSERT_EQ(unsetenv(variable), 0);
    EXPECT_EQ(vae("devices").err, "");
    const char* const compare = "compare --data synthetic:bars --hidden 5 --steps 1 --backend cpu";
    for (const char* variable : kVariables) {
        ASSERT_EQ(setenv(variable, "1", 1), 0);
        const ProgramResult devices = vae("devices");
        const ProgramResult compared = vae(compare);
        ASSERT_EQ(unsetenv(variable), 0);
        EXPECT_EQ(devices.status, 0);
        EXPECT_EQ(devices.err.find("vae: warning: " + std::string(variable) + "=1 is in the "), 0U);
        EXPECT_EQ(devices.err.find('\n') + 1, devices.err.size()) << "one line";
        EXPECT_FALSE(contains(compared.err, "warning")) << compared.err;
    }
}

}  // namespace
}  // namespace vae
