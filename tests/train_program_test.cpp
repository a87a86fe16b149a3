// The real program's `vae train`, where only a process of its own shows what it does.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "host/checkpoint.h"
#include "host/file_descriptor.h"
#include "host/npy.h"
#include "tests/cli_fixture.h"

namespace vae {
namespace {

using testing::contains;
using testing::Program;
using testing::ProgramResult;
using testing::put_file;
using testing::text_of;

class TrainProgramTest : public testing::CliTest {
  protected:
    // Examples of four pixels.
    void write_data(const std::string& name, std::size_t size) const {
        const std::size_t shape[] = {size, 2, 2};
        write_npy(work() / name, std::vector<float>(4 * size, 1.0F), shape);
    }
};

// The shell gives the program a pipe that nobody reads any more.
TEST_F(TrainProgramTest, AReaderThatEndsDoesNotEndTheRun) {
    const int status =
        shell("train --data synthetic:bars --hidden 8 --latent 2 --epochs 2 --out run >&4 2>err",
              "mkfifo pipe && exec 3<>pipe && exec 4>pipe && exec 3<&-");
    EXPECT_EQ(status, 1);
    EXPECT_TRUE(contains(text_of(work() / "err"), "standard output cannot be written"));
    EXPECT_EQ(load_checkpoint(work() / "run" / "checkpoint.safetensors").state.step, 94U);
    EXPECT_TRUE(std::filesystem::exists(work() / "run" / "samples.png"));
}

// What the process is called and what its environment says, while it waits for its settings.
struct Identity {
    std::string name;
    std::string environment;
};

// A pipe for writing, once somebody reads it; -1 if nobody does.
int open_when_read(const std::string& pipe) {
    using namespace std::chrono_literals;
    for (int i = 0; i < 6000; ++i) {
        const int descriptor = open(pipe.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (descriptor >= 0 || errno != ENXIO) return descriptor;
        std::this_thread::sleep_for(10ms);
    }
    return -1;
}

Identity identity_of_waiting(const std::filesystem::path& work) {
    const std::string settings = (work / "settings").string();
    mkfifo(settings.c_str(), 0600);
    const Program program(work, {"train", "--config", settings});
    Identity identity;
    {
        // It can be opened when the program has done so, long after it started itself again.
        const FileDescriptor writer(open_when_read(settings));
        if (!writer.is_open()) {
            program.raise(SIGKILL);  // it would wait for ever
            program.wait();
            ADD_FAILURE() << "the program does not open its settings";
            return identity;
        }
        const std::string process = "/proc/" + std::to_string(program.id());
        identity = {text_of(process + "/comm"), text_of(process + "/environ")};
        EXPECT_EQ(write(writer.get(), "x", 1), 1);  // no setting
    }
    EXPECT_EQ(program.wait().status, 2);
    std::filesystem::remove(settings);
    return identity;
}

TEST_F(TrainProgramTest, SpinningIsBoundedUnderTheProgramsOwnName) {
    const std::string variable = "GOMP_SPINCOUNT=";
    unsetenv("GOMP_SPINCOUNT");
    unsetenv("OMP_WAIT_POLICY");
    const Identity usual = identity_of_waiting(work());
    EXPECT_EQ(usual.name, std::filesystem::path(VAE_PROGRAM).filename().string() + "\n");
    EXPECT_TRUE(contains(usual.environment, variable + "10000"));
    setenv("GOMP_SPINCOUNT", "77", 1);
    EXPECT_TRUE(contains(identity_of_waiting(work()).environment, variable + "77"));
    unsetenv("GOMP_SPINCOUNT");
    setenv("OMP_WAIT_POLICY", "active", 1);
    EXPECT_FALSE(contains(identity_of_waiting(work()).environment, variable));
    unsetenv("OMP_WAIT_POLICY");
}

TEST_F(TrainProgramTest, ARunStopsEarlyAndSaysWhereItsBestIs) {
    const ProgramResult stopped =
        vae("train --data synthetic:bars --hidden 4 --latent 1 --batch 1000 --learning-rate 1e-30 "
            "--set train.patience=2 --epochs 9 --out run");
    EXPECT_EQ(stopped.status, 0) << stopped.err;
    EXPECT_TRUE(contains(stopped.out, "stopped early: no better test -elbo for 2 epochs; best "));
    EXPECT_TRUE(contains(stopped.out, " in epoch 1 (run/best.safetensors)\n")) << stopped.out;
    EXPECT_TRUE(contains(stopped.out, "next: vae evaluate run/best.safetensors")) << stopped.out;
    EXPECT_TRUE(std::filesystem::exists(work() / "run" / "samples.png"));
    for (const char* command :
         {"evaluate run/best.safetensors", "sample run/best.safetensors --out s.npy",
          "reconstruct run/best.safetensors --out r.npy", "info run/best.safetensors"}) {
        EXPECT_EQ(vae(command).status, 0) << command;
    }
    const ProgramResult info = vae("info run");
    EXPECT_TRUE(contains(info.out, " in epoch 1; 2 of 2 epochs without a better one")) << info.out;
    EXPECT_TRUE(contains(info.out, "patience = 2")) << info.out;

    const ProgramResult over = vae("train --resume --out run");
    EXPECT_EQ(over.status, 0) << over.err;
    EXPECT_TRUE(contains(over.out, "nothing left to do: stopped early: no better test -elbo for 2"))
        << over.out;
    std::filesystem::rename(work() / "run" / "best.safetensors", work() / "best");
    const ProgramResult gone = vae("train --resume --out run --set train.patience=3");
    EXPECT_EQ(gone.status, 2);
    EXPECT_TRUE(contains(gone.err, "run/best.safetensors: the checkpoint of the best epoch so far"))
        << gone.err;
    std::filesystem::rename(work() / "best", work() / "run" / "best.safetensors");
    const ProgramResult more = vae("train --resume --out run --set train.patience=3");
    EXPECT_EQ(more.status, 0) << more.err;
    EXPECT_TRUE(contains(more.out, "stopped early: no better test -elbo for 3 epochs")) << more.out;
    EXPECT_EQ(load_checkpoint(work() / "run" / "checkpoint.safetensors").state.step, 24U);
}

TEST_F(TrainProgramTest, EarlyStoppingWithoutHeldOutExamplesIsRefused) {
    write_data("one.npy", 1);
    expect_refused({{"train --hidden 4 --latent 1 --data one.npy --set train.patience=2 --out run",
                     2, "has no held-out examples to stop by"}});
}

TEST_F(TrainProgramTest, ARunGoesOnWithDataThatMoved) {
    write_data("old.npy", 40);
    const std::string train = "train --hidden 4 --latent 1 --batch 8 --out run ";
    ASSERT_EQ(vae(train + "--epochs 1 --data old.npy").status, 0);
    std::filesystem::rename(work() / "old.npy", work() / "new.npy");
    for (const char* command : {"train --resume --out run --epochs 2", "evaluate run"}) {
        const ProgramResult result = vae(command);
        EXPECT_EQ(result.status, 2) << command;
        EXPECT_TRUE(contains(result.err,
                             "old.npy' are not there any more; name their new place "
                             "with --data"))
            << result.err;
    }
    write_data("other.npy", 50);
    const ProgramResult other = vae("train --resume --out run --epochs 2 --data other.npy");
    EXPECT_EQ(other.status, 2);
    EXPECT_TRUE(contains(other.err, "now has 45 training examples")) << other.err;
    const ProgramResult moved = vae("train --resume --out run --epochs 2 --data new.npy");
    EXPECT_EQ(moved.status, 0) << moved.err;
    EXPECT_TRUE(contains(moved.out, "old.npy; they must be the same")) << moved.out;
    // From now on they are where they are.
    EXPECT_TRUE(contains(text_of(work() / "run" / "config.toml"), "new.npy"));
    const ProgramResult again = vae("train --resume --out run --epochs 3");
    EXPECT_EQ(again.status, 0) << again.err;
    EXPECT_FALSE(contains(again.out, "they must be the same")) << again.out;
    EXPECT_EQ(load_checkpoint(work() / "run" / "checkpoint.safetensors").state.step, 15U);
    // A run that is done learns it too, and nothing else.
    std::filesystem::rename(work() / "new.npy", work() / "newest.npy");
    EXPECT_EQ(vae("train --resume --out run --epochs 2 --data newest.npy").status, 0);
    EXPECT_EQ(vae("evaluate run").status, 0);
    EXPECT_TRUE(contains(vae("train --resume --out run").out, "15 of 15 steps done"));
}

TEST_F(TrainProgramTest, AResumedRunHasNoFilesOfAKilledSave) {
    write_data("data.npy", 8);
    ASSERT_EQ(vae("train --data data.npy --hidden 4 --latent 1 --steps 1 --out run").status, 0);
    put_file(work() / "run" / ".vae-1-1.tmp", "half a checkpoint");
    const ProgramResult resumed = vae("train --resume --out run --steps 2");
    EXPECT_EQ(resumed.status, 0) << resumed.err;
    EXPECT_FALSE(std::filesystem::exists(work() / "run" / ".vae-1-1.tmp"));
}

TEST_F(TrainProgramTest, ARunThatIsLongerThanAskedForSaysSo) {
    write_data("data.npy", 8);
    ASSERT_EQ(vae("train --data data.npy --hidden 4 --latent 1 --steps 3 --out run").status, 0);
    const ProgramResult result = vae("train --resume --out run --steps 2");
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_TRUE(contains(result.out, "3 steps done, which is more than the 2 asked for"))
        << result.out;
    EXPECT_TRUE(contains(vae("train --resume --out run").out, "3 of 3 steps done"));
}

// There is none to hold out: the row and the line are of the training alone.
TEST_F(TrainProgramTest, OneExampleIsTrainedOn) {
    write_data("one.npy", 1);
    const ProgramResult result =
        vae("train --data one.npy --hidden 4 --latent 1 --steps 1 --out run");
    EXPECT_EQ(result.status, 0) << result.err;
    const std::size_t first = result.out.find("-elbo");
    ASSERT_NE(first, std::string::npos) << result.out;
    EXPECT_EQ(result.out.find("-elbo", first + 1), std::string::npos) << result.out;
    const std::string metrics = text_of(work() / "run" / "metrics.jsonl");
    EXPECT_EQ(metrics.find('\n'), metrics.size() - 1) << metrics;
}

}  // namespace
}  // namespace vae
