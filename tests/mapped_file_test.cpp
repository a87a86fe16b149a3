// Files that are mapped are the files that are read, and take no memory of their own.
#include "host/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "host/data_source.h"
#include "host/error.h"
#include "host/examples.h"
#include "host/npy.h"
#include "host/stored_examples.h"
#include "tests/data_files.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::gzip;
using testing::idx;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

// An .npy file whose header is padded so that the data begin at `begin`.
std::string npy(const std::string& type, const std::string& shape, const std::string& data,
                std::size_t begin = 128) {
    std::string header =
        "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
    header.append(begin - 10 - header.size() - 1, ' ');
    header += '\n';
    std::string file = "\x93NUMPY";
    file += {'\x01', '\x00', static_cast<char>(header.size() & 0xff),
             static_cast<char>(header.size() >> 8)};
    return file + header + data;
}

std::string bytes_0_to(std::size_t count) {
    std::string bytes(count, '\0');
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(i);
    return bytes;
}

std::string floats_0_to(std::size_t count) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i) / 64.0F;
    return {reinterpret_cast<const char*>(values.data()), count * sizeof(float)};
}

bool is_in_file(const Dataset& data) {
    return std::visit([](const auto& values) { return values.is_in_file(); }, data.values);
}

// The file as it is mapped, and the same unpacked from gzip, which cannot be.
void expect_mapped_and_read_are_same(const std::string& file) {
    const TemporaryFolder folder;
    put_file((folder / "mapped").string(), file);
    put_file((folder / "read").string(), gzip(file));
    const Dataset mapped = load_examples((folder / "mapped").string());
    const Dataset read = load_examples((folder / "read").string());
    EXPECT_TRUE(is_in_file(mapped));
    EXPECT_FALSE(is_in_file(read));
    EXPECT_EQ(mapped.shape, read.shape);
    EXPECT_EQ(mapped.size, read.size);
    EXPECT_TRUE(mapped.values == read.values);
    EXPECT_GT(mapped.size, 0U);
}

TEST(MappedFile, IsTheFileThatIsRead) {
    expect_mapped_and_read_are_same(idx({5, 2, 3}, bytes_0_to(30)));
    expect_mapped_and_read_are_same(npy("|u1", "(5, 6)", bytes_0_to(30)));
    expect_mapped_and_read_are_same(npy("<f4", "(5, 2, 3)", floats_0_to(30)));
}

TEST(MappedFile, FloatsThatAreNotAlignedAreCopied) {
    const TemporaryFolder folder;
    for (const std::size_t begin : {125U, 126U, 127U, 128U}) {
        put_file((folder / "a.npy").string(), npy("<f4", "(5, 6)", floats_0_to(30), begin));
        const Dataset data = load_examples((folder / "a.npy").string());
        EXPECT_EQ(is_in_file(data), begin == 128);
        const auto& values = std::get<FloatValues>(data.values);
        const auto* const bytes = reinterpret_cast<const char*>(values.data());
        EXPECT_EQ(std::string(bytes, 120), floats_0_to(30)) << begin;
    }
}

TEST(MappedFile, SplitsAreViewsOfOneMappingThatTheyKeep) {
    const TemporaryFolder folder;
    const std::string path = (folder / "a.npy").string();
    put_file(path, npy("|u1", "(20, 5)", bytes_0_to(100)));
    DataConfig config;
    config.source = path;
    config.validation = 3;
    Splits splits = load_splits(config, {});
    // The program replaces files as this does: the old one stays for who has it.
    fs::remove(path);
    const auto& train = std::get<ByteValues>(splits.train.values);
    const auto& validation = std::get<ByteValues>(splits.validation.values);
    const auto& test = std::get<ByteValues>(splits.test.values);
    EXPECT_EQ(train.size(), 15U * 5);
    EXPECT_EQ(validation.data(), train.data() + train.size());
    EXPECT_EQ(test.data(), validation.data() + validation.size());
    splits.train = {};
    splits.test = {};
    EXPECT_EQ(validation[0], 75);
    EXPECT_TRUE(is_in_file(splits.validation));
}

TEST(MappedFile, AFileShorterThanItSaysIsRefusedBeforeItIsUsed) {
    const TemporaryFolder folder;
    const std::string path = (folder / "a.npy").string();
    const std::string whole = npy("<f4", "(5, 6)", floats_0_to(30));
    put_file(path, whole);
    fs::resize_file(path, whole.size() - 1);
    const std::string message = message_of<InputError>([&] { (void)load_examples(path); });
    EXPECT_TRUE(contains(message, "too short")) << message;
    EXPECT_TRUE(contains(message, path)) << message;
}

TEST(MappedFile, WhatCannotBeMappedIsSaid) {
    const TemporaryFolder folder;
    EXPECT_EQ(map_file(folder / "missing"), nullptr);
    EXPECT_EQ(map_file(folder.path()), nullptr);
    put_file((folder / "empty").string(), "");
    EXPECT_EQ(map_file(folder / "empty"), nullptr);
    const std::string message =
        message_of<InputError>([&] { (void)MappedFile(folder / "missing"); });
    EXPECT_TRUE(contains(message, "missing: ")) << message;
    // Nothing of no bytes can be mapped.
    const std::string empty = message_of<InputError>([&] { (void)MappedFile(folder / "empty"); });
    EXPECT_TRUE(contains(empty, "cannot map")) << empty;
}

TEST(MappedFile, APipeIsReadAsBefore) {
    const TemporaryFolder folder;
    const std::string path = (folder / "pipe").string();
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    const pid_t writer = ::fork();
    ASSERT_GE(writer, 0);
    if (writer == 0) {
        std::ofstream(path, std::ios::binary) << idx({5, 2, 3}, bytes_0_to(30));
        ::_exit(0);
    }
    const Dataset data = load_examples(path);
    EXPECT_FALSE(is_in_file(data));
    EXPECT_EQ(std::get<ByteValues>(data.values)[29], 29);
}

TEST(MappedFile, AdviceIsForAnyPartOfIt) {
    const TemporaryFolder folder;
    put_file((folder / "a").string(), bytes_0_to(10000));
    const MappedFile file(folder / "a");
    const auto bytes = std::as_bytes(file.bytes());
    advise_scattered(bytes);
    advise_soon(bytes.subspan(4097, 3));
    advise_soon({});
    EXPECT_EQ(file.bytes()[4099], 4099 % 256);
}

// 64 GiB of zeros that take no room on the disk, and no memory.
TEST(StoredExamples, OfAFileLargerThanMemory) {
    const TemporaryFolder folder;
    const std::string path = (folder / "huge.idx").string();
    put_file(path, idx({1u << 16, 1u << 10, 1u << 10}, ""));
    fs::resize_file(path, (std::uint64_t{1} << 36) + 16);
    Splits splits;
    splits.train = load_examples(path);
    const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES));
    const std::size_t memory = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    EXPECT_EQ(is_large_file(splits.train), memory < std::size_t{1} << 37);
    EXPECT_EQ(row_bytes(splits), std::size_t{1} << 20);
    EXPECT_EQ(stored_bytes(splits.train).size(), std::size_t{1} << 36);
    expect_scattered_reads(splits.train);
    expect_reads(splits.train, std::array<std::uint32_t, 2>{65535, 3});
    EXPECT_EQ(stored_bytes(splits.train).back(), std::byte{0});

    const Dataset small = {{1, 3, 1}, 2, std::vector<float>(6, 0.5F), false, 0};
    EXPECT_FALSE(is_large_file(small));
    EXPECT_EQ(row_bytes(small), 12U);
    EXPECT_EQ(stored_bytes(small).size(), 24U);
}

TEST(Values, ShareTheirMemoryWithTheirParts) {
    ByteValues part;
    {
        const ByteValues all(std::vector<std::uint8_t>{1, 2, 3, 4});
        part = all.part(1, 2);
        EXPECT_EQ(part.data(), all.data() + 1);
        EXPECT_THROW((void)all.part(3, 2), std::invalid_argument);
        EXPECT_THROW((void)all.part(5, 0), std::invalid_argument);
        EXPECT_EQ(all.part(4, 0).size(), 0U);
    }
    EXPECT_TRUE(part == ByteValues(std::vector<std::uint8_t>{2, 3}));
    EXPECT_FALSE(part == ByteValues(std::vector<std::uint8_t>{2, 3, 4}));
}

}  // namespace
}  // namespace vae
