#include "host/run_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <latch>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "host/data_source.h"
#include "host/error.h"
#include "host/file_descriptor.h"
#include "host/files.h"
#include "host/stop_signal.h"
#include "host/train.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

class RunFolderTest : public ::testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path out_ = folder_ / "a" / "b";
};

TEST_F(RunFolderTest, ARunThatCannotStartLeavesNothing) {
    {
        const NewRunFolder made(out_ / "", "synthetic:bars");
        write_file_atomically(made.folder().config(), "x");
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "a"));
    std::filesystem::create_directories(out_);
    {
        const NewRunFolder made(out_, "synthetic:bars");
        write_file_atomically(made.folder().config(), "x");
        write_file_atomically(made.folder().checkpoint(), "x");
    }
    EXPECT_TRUE(std::filesystem::is_directory(out_));
    EXPECT_TRUE(std::filesystem::is_empty(out_));
    {
        NewRunFolder made(out_, "synthetic:bars");
        write_file_atomically(made.folder().config(), "x");
        made.keep();
    }
    EXPECT_TRUE(std::filesystem::exists(out_ / "config.toml"));
}

TEST_F(RunFolderTest, IsLockedOnce) {
    const auto lock_again = [this] { const RunLock lock(out_); };
    std::filesystem::create_directories(out_);
    {
        const NewRunFolder made(out_, "synthetic:bars");
        EXPECT_TRUE(contains(message_of<InputError>(lock_again), "in use"));
    }
    lock_again();
    EXPECT_TRUE(std::filesystem::is_empty(out_));
}

// A folder that may not be entered fails in the same way; root may enter all.
TEST_F(RunFolderTest, AFailureToLookIsNotAMissingRun) {
    std::filesystem::create_symlink("loop", folder_ / "loop");
    const std::string message =
        message_of<InputError>([this] { find_checkpoint(folder_ / "loop"); });
    EXPECT_TRUE(contains(message, "symbolic links")) << message;
    EXPECT_TRUE(contains(message_of<InputError>([this] { find_checkpoint(out_); }),
                         "there is no such run folder"));
}

// A symbolic link is somebody's, and stays; what it points to is not made.
TEST_F(RunFolderTest, ALinkToNothingIsRefusedAndStays) {
    const auto link = folder_ / "link";
    std::filesystem::create_symlink(folder_ / "missing", link);
    for (const auto& out : {link, link / ""}) {
        const std::string message = message_of<InputError>([&] { check_new_run_folder(out); });
        EXPECT_TRUE(contains(message, "is a symbolic link to " + (folder_ / "missing").string()))
            << message;
    }
    const auto below = link / "run";
    const std::string message =
        message_of<InputError>([&] { const NewRunFolder made(below, "synthetic:bars"); });
    EXPECT_TRUE(contains(message, "cannot be created")) << message;
    EXPECT_TRUE(std::filesystem::is_symlink(link));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "missing"));
    // One to a folder is as good as the folder.
    std::filesystem::create_directory(folder_ / "missing");
    { const NewRunFolder made(link, "synthetic:bars"); }
    EXPECT_TRUE(std::filesystem::is_directory(link));
}

TEST_F(RunFolderTest, FoldersMadeBeforeAFailureAreRemoved) {
    put_file(folder_ / "file", "");
    const auto out = folder_ / "x" / ".." / "file" / "run";
    EXPECT_NE(message_of<InputError>([&] { const NewRunFolder made(out, "synthetic:bars"); }), "");
    EXPECT_FALSE(std::filesystem::exists(folder_ / "x"));
}

// Where the process works, for folders below runs/.
class WorkingFolder {
  public:
    explicit WorkingFolder(const std::filesystem::path& folder)
        : before_(std::filesystem::current_path()) {
        std::filesystem::current_path(folder);
    }
    ~WorkingFolder() { std::filesystem::current_path(before_); }
    WorkingFolder(const WorkingFolder&) = delete;
    WorkingFolder& operator=(const WorkingFolder&) = delete;
    WorkingFolder(WorkingFolder&&) = delete;
    WorkingFolder& operator=(WorkingFolder&&) = delete;

  private:
    std::filesystem::path before_;
};

TEST_F(RunFolderTest, RunsThatStartAtOnceGetAFolderEach) {
    const WorkingFolder here(folder_.path());
    constexpr std::size_t kRuns = 8;
    for (int round = 0; round < 20; ++round) {
        std::vector<std::string> roots(kRuns);
        std::latch start(kRuns);
        {
            std::vector<std::jthread> threads;
            threads.reserve(kRuns);
            for (std::string& root : roots) {
                threads.emplace_back([&start, &root] {
                    start.arrive_and_wait();
                    root = message_of<InputError>([&root] {
                        NewRunFolder made("", "synthetic:bars");
                        made.keep();
                        throw InputError(made.folder().root.string());
                    });
                });
            }
        }
        std::set<std::string> expected;
        for (std::size_t i = 1; i <= kRuns; ++i) {
            expected.insert("runs/synthetic-bars-" + std::to_string(i));
        }
        EXPECT_EQ(std::set<std::string>(roots.begin(), roots.end()), expected);
        std::filesystem::remove_all("runs");
    }
}

TEST_F(RunFolderTest, ANumberThatALinkHasIsTaken) {
    const WorkingFolder here(folder_.path());
    std::filesystem::create_directory("runs");
    std::filesystem::create_symlink("missing", "runs/faces-1");
    const NewRunFolder made("", "/data/faces.npy");
    EXPECT_EQ(made.folder().root, "runs/faces-2");
    EXPECT_TRUE(std::filesystem::is_symlink("runs/faces-1"));
}

TEST_F(RunFolderTest, ASignalDuringTheStartLeavesNothing) {
    Config config;
    config.data.source = "synthetic:bars";
    config.model.encoder_hidden = config.model.decoder_hidden = {8};
    const Checkpoint start = initial_checkpoint(config, load_splits(config.data, config.model));
    const auto begin = [&](bool is_stopped) {
        const StopSignal stop;
        NewRunFolder made(out_, config.data.source);
        if (is_stopped) raise(SIGTERM);
        begin_run(made, start, [&stop] { return stop.was_raised(); });
    };
    const std::string message = message_of<RunError>([&] { begin(true); });
    EXPECT_TRUE(contains(message, "stopped by a signal before the first step")) << message;
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
    begin(false);
    EXPECT_EQ(load_checkpoint(out_ / "checkpoint.safetensors").state.step, 0U);
    EXPECT_TRUE(contains(read_file(out_ / "config.toml"), "encoder_hidden = [8]"));
}

TEST(StaleTemporaries, OnlyThoseThatNobodyWritesAreRemoved) {
    const TemporaryFolder folder;
    const std::vector<std::string> others = {".vae-notes.tmp", ".vae-1-2.txt", "vae-1-2.tmp",
                                             "checkpoint.safetensors"};
    for (const std::string& name : others) put_file(folder / name, "x");
    put_file(folder / ".vae-1-2.tmp", "stale");
    put_file(folder / ".vae-3-4.tmp", "being written");
    {
        const FileDescriptor writer(open((folder / ".vae-3-4.tmp").c_str(), O_WRONLY));
        ASSERT_EQ(flock(writer.get(), LOCK_EX), 0);
        remove_stale_temporaries(folder.path());
        EXPECT_FALSE(std::filesystem::exists(folder / ".vae-1-2.tmp"));
        EXPECT_TRUE(std::filesystem::exists(folder / ".vae-3-4.tmp"));
    }
    remove_stale_temporaries(folder.path());
    EXPECT_FALSE(std::filesystem::exists(folder / ".vae-3-4.tmp"));
    for (const std::string& name : others) EXPECT_TRUE(std::filesystem::exists(folder / name));
    remove_stale_temporaries(folder / "missing");
}

TEST(StaleTemporaries, AFileBeingWrittenIsNotDisturbed) {
    const TemporaryFolder folder;
    std::atomic<bool> is_done = false;
    std::string message;
    {
        const std::jthread writer([&] {
            message = message_of<RunError>([&folder] {
                for (int i = 0; i < 50; ++i) write_file_atomically(folder / "file", "content");
            });
            is_done = true;
        });
        while (!is_done) remove_stale_temporaries(folder.path());
    }
    EXPECT_EQ(message, "");
    EXPECT_EQ(read_file(folder / "file"), "content");
}

}  // namespace
}  // namespace vae
