#include "host/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "host/error.h"
#include "tests/data_files.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::gzip;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

std::size_t entries_in(const fs::path& folder) {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::string unpacked(const fs::path& path) {
    const std::vector<std::uint8_t> bytes = read_maybe_gzip(path);
    return {bytes.begin(), bytes.end()};
}

// Packs to about a third, so that it spans several turns of the unpacker on both sides.
std::string mixed_content(std::size_t size) {
    std::mt19937 random(7);
    std::string content(size, '\0');
    for (char& c : content) c = static_cast<char>(random() % 8);
    return content;
}

TEST(Files, WriteThenReadGivesTheSameBytes) {
    const TemporaryFolder folder;
    const std::string zeros("a\0b\n\xff", 5);
    for (const std::string& content : {std::string(), zeros, mixed_content(300001)}) {
        write_file_atomically(folder / "file", content);
        EXPECT_EQ(read_file(folder / "file"), content);
    }
    EXPECT_EQ(entries_in(folder.path()), 1u);
}

TEST(Files, PartsAreLaidEndToEnd) {
    const TemporaryFolder folder;
    const std::string first = "ab";
    const std::string second = "cde";
    const std::array parts = {std::as_bytes(std::span(first)), std::span<const std::byte>(),
                              std::as_bytes(std::span(second))};
    write_file_atomically(folder / "file", parts);
    EXPECT_EQ(read_file(folder / "file"), "abcde");
}

TEST(Files, WriteFollowsASymbolicLink) {
    const TemporaryFolder folder;
    fs::create_directory(folder / "elsewhere");
    write_file_atomically(folder / "elsewhere/target", "old");
    fs::create_symlink("elsewhere/target", folder / "link");
    write_file_atomically(folder / "link", "new");
    EXPECT_TRUE(fs::is_symlink(folder / "link"));
    EXPECT_EQ(read_file(folder / "elsewhere/target"), "new");
}

TEST(Files, WriteFollowsLinksToWhatIsNotThereYet) {
    const TemporaryFolder folder;
    fs::create_directory(folder / "elsewhere");
    fs::create_symlink("elsewhere/second", folder / "first");
    fs::create_symlink("../target", folder / "elsewhere/second");  // of the folder it is in
    check_writable(folder / "first");
    write_file_atomically(folder / "first", "new");
    EXPECT_TRUE(fs::is_symlink(folder / "first"));
    EXPECT_TRUE(fs::is_symlink(folder / "elsewhere/second"));
    EXPECT_EQ(read_file(folder / "target"), "new");
    fs::create_symlink(folder / "absolute", folder / "third");
    write_file_atomically(folder / "third", "newer");
    EXPECT_EQ(read_file(folder / "absolute"), "newer");
}

TEST(Files, ALinkThatCannotBeFollowedIsARunErrorAndStays) {
    const TemporaryFolder folder;
    fs::create_symlink("loop", folder / "loop");
    fs::create_symlink("missing/file", folder / "astray");
    for (const char* const link : {"loop", "astray"}) {
        const fs::path path = folder / link;
        const char* const reason = link[0] == 'l' ? "symbolic links" : "No such file or directory";
        EXPECT_TRUE(contains(message_of<InputError>([&] { check_writable(path); }), reason));
        EXPECT_TRUE(
            contains(message_of<RunError>([&] { write_file_atomically(path, "x"); }), reason));
        EXPECT_TRUE(fs::is_symlink(path));
    }
    EXPECT_EQ(entries_in(folder.path()), 2u);
}

TEST(Files, OneFileByTwoNames) {
    const TemporaryFolder folder;
    fs::create_directory(folder / "below");
    fs::create_symlink("new", folder / "link");
    EXPECT_TRUE(same_file(folder / "new", folder / "below/../new"));
    EXPECT_TRUE(same_file(folder / "new", folder / "link"));  // neither is there
    put_file(folder / "new", "");
    EXPECT_TRUE(same_file(folder / "new", folder / "link"));
    EXPECT_FALSE(same_file(folder / "new", folder / "below/new"));
}

TEST(Files, ANewFileHasThePermissionsTheUserAsksFor) {
    const TemporaryFolder folder;
    const mode_t old = ::umask(027);
    write_file_atomically(folder / "file", "x");
    ::umask(old);
    struct stat status = {};
    ASSERT_EQ(::stat((folder / "file").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777u, 0640u);
}

TEST(Files, AFailedWriteLeavesTheOldFileAndNothingElse) {
    const TemporaryFolder folder;
    write_file_atomically(folder / "file", "old");
    rlimit before = {};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    rlimit small = before;
    small.rlim_cur = 100000;
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // write() then fails with EFBIG
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::string message = message_of<RunError>(
        [&] { write_file_atomically(folder / "file", std::string(200000, 'x')); });
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    std::signal(SIGXFSZ, handler);
    EXPECT_TRUE(contains(message, (folder / "file").string())) << message;
    EXPECT_TRUE(contains(message, "File too large")) << message;
    EXPECT_EQ(read_file(folder / "file"), "old");
    EXPECT_EQ(entries_in(folder.path()), 1u);
}

TEST(Files, WhatCannotBeWrittenIsARunError) {
    const TemporaryFolder folder;
    fs::create_directory(folder / "folder");
    const auto write = [](const fs::path& path) {
        return message_of<RunError>([&] { write_file_atomically(path, "x"); });
    };
    EXPECT_TRUE(contains(write(folder / "missing/file"), "No such file or directory"));
    EXPECT_TRUE(contains(write(folder / "folder"), "it exists and is a folder"));
    // Replacing /dev/null by a file would break the machine for everybody.
    EXPECT_TRUE(contains(write("/dev/null"), "not a file"));
    EXPECT_TRUE(contains(write("/proc/nothing"), "/proc/nothing"));
    EXPECT_EQ(entries_in(folder / "folder"), 0u);
}

TEST(Files, WhatCannotBeReadIsAnInputError) {
    const TemporaryFolder folder;
    const auto read = [](const fs::path& path) {
        return message_of<InputError>([&] { read_file(path); });
    };
    const std::string missing = read(folder / "missing");
    EXPECT_TRUE(contains(missing, (folder / "missing").string())) << missing;
    EXPECT_TRUE(contains(missing, "No such file or directory")) << missing;
    EXPECT_TRUE(contains(read(folder.path()), "Is a directory"));
    EXPECT_TRUE(contains(read("/dev/zero"), "it is not a file"));  // and comes back at all
}

TEST(Files, GzipIsUnpackedAndOtherFilesAreNot) {
    const TemporaryFolder folder;
    const std::string content = mixed_content(300001);
    write_file_atomically(folder / "plain", content);
    write_file_atomically(folder / "packed", gzip(content));
    write_file_atomically(folder / "members", gzip("ab") + gzip("") + gzip("cd"));
    write_file_atomically(folder / "zeros.gz", gzip(std::string(1000000, '\0')));
    EXPECT_EQ(unpacked(folder / "plain"), content);
    EXPECT_EQ(unpacked(folder / "packed"), content);
    EXPECT_EQ(unpacked(folder / "members"), "abcd");
    EXPECT_EQ(unpacked(folder / "zeros.gz"), std::string(1000000, '\0'));
}

TEST(Files, GzipTruncatedAnywhereIsAnInputError) {
    const TemporaryFolder folder;
    const std::string packed = gzip(mixed_content(200));
    for (std::size_t size = 2; size < packed.size(); ++size) {
        put_file(folder / "file", packed.substr(0, size));
        const std::string message =
            message_of<InputError>([&] { read_maybe_gzip(folder / "file"); });
        ASSERT_TRUE(contains(message, "ends too early")) << size << ": " << message;
        ASSERT_TRUE(contains(message, (folder / "file").string())) << message;
    }
}

TEST(Files, DamagedGzipIsAnInputError) {
    const TemporaryFolder folder;
    const std::string content = mixed_content(200);
    const std::string packed = gzip(content);
    std::size_t refused = 0;
    for (std::size_t at = 2; at < packed.size(); ++at) {
        std::string damaged = packed;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
        put_file(folder / "file", damaged);
        std::string got;
        const std::string message =
            message_of<InputError>([&] { got = unpacked(folder / "file"); });
        if (message.empty()) {
            // The header's time, flags and system carry no data and no checksum.
            ASSERT_LT(at, 10u);
            ASSERT_EQ(got, content);
        } else {
            ++refused;
        }
    }
    EXPECT_GE(refused, packed.size() - 10);
    put_file(folder / "file", packed + "rubbish");
    EXPECT_TRUE(contains(message_of<InputError>([&] { read_maybe_gzip(folder / "file"); }),
                         "followed by something else"));
}

}  // namespace
}  // namespace vae
