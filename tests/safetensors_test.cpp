#include "host/safetensors.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/error.h"
#include "host/files.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

std::string container(const std::string& header, const std::string& data) {
    const std::uint64_t length = header.size();
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    return file + header + data;
}

// A header of one tensor "a".
std::string entry(const std::string& type, const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}}";
}

class Safetensors : public ::testing::Test {
  protected:
    // The message that opening a file of this content gives; it names the file.
    std::string refusal(const std::string& content) {
        put_file(path_, content);
        const std::string message = message_of<InputError>([&] { SafetensorsFile file(path_); });
        EXPECT_TRUE(contains(message, path_.string())) << message;
        return message;
    }

    TemporaryFolder folder_;
    std::filesystem::path path_ = folder_ / "file.safetensors";
};

TEST_F(Safetensors, EverythingComesBackBitForBit) {
    const std::vector<float> floats = {1.0f, -0.0f, std::numeric_limits<float>::quiet_NaN()};
    const std::vector<double> doubles = {0.1, -1e300};
    const std::vector<float> scalar = {5.0f};
    const std::map<std::string, std::string> metadata = {{"config", "a = \"ü\"\n"}, {"step", "7"}};
    write_safetensors(path_,
                      {{"b", {3, 1}, std::span<const float>(floats)},
                       {"empty", {0, 4}, std::span<const float>()},
                       {"a \"quoted\"", {2}, std::span<const double>(doubles)},
                       {"scalar", {}, std::span<const float>(scalar)}},
                      metadata);
    const SafetensorsFile file(path_);
    EXPECT_EQ(file.metadata(), metadata);
    EXPECT_EQ(file.names().size(), 4u);
    EXPECT_TRUE(file.contains("empty"));
    EXPECT_FALSE(file.contains("c"));
    const LoadedTensor b = file.tensor("b");
    EXPECT_EQ(b.shape, (std::vector<std::size_t>{3, 1}));
    ASSERT_EQ(std::get<std::vector<float>>(b.values).size(), 3u);
    EXPECT_EQ(std::memcmp(std::get<std::vector<float>>(b.values).data(), floats.data(), 12), 0);
    EXPECT_EQ(std::get<std::vector<double>>(file.tensor("a \"quoted\"").values), doubles);
    EXPECT_EQ(file.tensor("empty").shape, (std::vector<std::size_t>{0, 4}));
    EXPECT_TRUE(file.tensor("scalar").shape.empty());
    EXPECT_EQ(std::get<std::vector<float>>(file.tensor("scalar").values), scalar);
    const std::string missing = message_of<InputError>([&] { file.tensor("c\n"); });
    EXPECT_TRUE(contains(missing, "it has no tensor \"c\\n\"")) << missing;
}

TEST_F(Safetensors, TheLayoutIsTheFormats) {
    const std::vector<float> floats = {1.0f};
    const std::vector<double> doubles = {2.0};
    write_safetensors(
        path_,
        {{"f", {1}, std::span<const float>(floats)}, {"d", {1}, std::span<const double>(doubles)}},
        {});
    const std::string expected = R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                                 R"("f":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})";
    const std::string file = read_file(path_);
    const std::size_t padded = (expected.size() + 7) / 8 * 8;  // so that doubles are aligned
    EXPECT_EQ(file.substr(0, 8), std::string({static_cast<char>(padded), 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(file.substr(8, padded), expected + std::string(padded - expected.size(), ' '));
    ASSERT_EQ(file.size(), 8 + padded + 12);
    double d = 0;
    std::memcpy(&d, file.data() + 8 + padded, 8);
    EXPECT_EQ(d, 2.0);
}

TEST_F(Safetensors, AFileWithoutTensorsIsWhole) {
    write_safetensors(path_, {}, {});
    const SafetensorsFile file(path_);
    EXPECT_TRUE(file.names().empty());
    EXPECT_TRUE(file.metadata().empty());
}

TEST_F(Safetensors, ReadsBytesAndForeignSpacing) {
    write_file_atomically(
        path_, container("{ \"a\" : " + entry("U8", "[2]", "[0,2]").substr(5) + " \n ", "xy"));
    const auto values =
        std::get<std::vector<std::uint8_t>>(SafetensorsFile(path_).tensor("a").values);
    EXPECT_EQ(values, (std::vector<std::uint8_t>{'x', 'y'}));
}

TEST_F(Safetensors, WrongUseIsRefusedAndNothingWritten) {
    const std::vector<float> one = {1.0f};
    const std::span<const float> values(one);
    EXPECT_THROW(write_safetensors(path_, {{"a", {2}, values}}, {}), std::invalid_argument);
    EXPECT_THROW(write_safetensors(path_, {{"a", {1}, values}, {"a", {1}, values}}, {}),
                 std::invalid_argument);
    EXPECT_THROW(write_safetensors(path_, {{"__metadata__", {1}, values}}, {}),
                 std::invalid_argument);
    const std::string message = message_of<InputError>([&] {
        write_safetensors(path_, {}, {{"config", "\xff"}});
    });
    EXPECT_TRUE(contains(message, "UTF-8")) << message;
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(Safetensors, EveryCorruptionIsNamed) {
    struct Case {
        std::string file;
        std::string said;
    };
    const std::string good = entry("F32", "[1]", "[0,4]");
    const std::string huge = "4294967296";
    const std::vector<Case> cases = {
        {"", "shorter than 8 bytes"},
        {"1234567", "shorter than 8 bytes"},
        {std::string(8, '\xff'), "its header would have 18446744073709551615 bytes"},
        {std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), "its header would have 100000001 bytes"},
        {container(good, "abcd").substr(0, 20), "the file ends before"},
        {container("", ""), "does not start with {"},
        {container("[]", ""), "does not start with {"},
        {container(" " + good, "abcd"), "does not start with {"},
        {container("{", ""), "not valid JSON"},
        {container("{} {}", ""), "not valid JSON"},
        {container("{\"\xff\":1}", ""), "not valid JSON"},
        {container(R"({"a":[[[[1]]]]})", ""), "nested too deep"},
        {container(R"({"a":{"b":{"c":{"d":1}}}})", ""), "nested too deep"},
        {container("{" + good.substr(1, good.size() - 2) + "," + good.substr(1), "abcd"),
         "\"a\" comes twice"},
        {container(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                   "abcd"),
         "\"dtype\" comes twice"},
        {container(R"({"a":3})", ""), "malformed"},
        {container(R"({"a":{"dtype":"F32","shape":[1]}})", "abcd"), "malformed"},
        {container(R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,4]}})", "abcd"), "malformed"},
        {container(entry("F32", "[-1]", "[0,4]"), "abcd"), "malformed"},
        {container(entry("F32", "[1.0]", "[0,4]"), "abcd"), "malformed"},
        {container(entry("F32", "[1]", "[0,4,8]"), "abcd"), "malformed"},
        {container(entry("F32", "[99999999999999999999]", "[0,4]"), "abcd"), "malformed"},
        {container(entry("BF16", "[2]", "[0,4]"), "abcd"), "type \"BF16\""},
        {container(entry("F32", "[2]", "[0,4]"), "abcd"), "does not match its bytes"},
        {container(entry("F32", "[1]", "[4,0]"), "abcd"), "does not match its bytes"},
        {container(entry("F32", "[" + huge + "," + huge + "]", "[0,0]"), ""),
         "does not match its bytes"},
        {container(entry("F64", "[2305843009213693952]", "[0,0]"), ""), "does not match its bytes"},
        {container(entry("F32", "[1]", "[4,8]"), "abcdefgh"), "hole or an overlap"},
        {container(good, "abc"), "have 4 bytes, and the file holds 3"},
        {container(good, "abcde"), "have 4 bytes, and the file holds 5"},
        {container(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                   R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                   "abc"),
         "hole or an overlap"},
        {container(R"({"__metadata__":3})", ""), "__metadata__ is not a JSON object"},
        {container(R"({"__metadata__":{"a":3}})", ""), "not a string"},
    };
    for (const Case& one : cases) {
        const std::string message = refusal(one.file);
        EXPECT_TRUE(contains(message, one.said)) << one.said << " / " << message;
    }
}

TEST_F(Safetensors, AMessageStaysShortAndPrintable) {
    const std::string name(100000, 'n');
    const std::string header = R"({")" + name + R"(\u0007":{"dtype":"\n\u001b[1m","shape":[1],)" +
                               R"("data_offsets":[0,4]}})";
    const std::string message = refusal(container(header, "abcd"));
    EXPECT_LT(message.size(), 400u);
    for (const char c : message) EXPECT_GE(c, ' ');
}

// Every truncation is refused; a changed byte is refused or changes what is read, and nothing
// crashes (the sanitizers' build of this test shows what a crash would hide).
TEST_F(Safetensors, TruncatedOrDamagedAnywhereNeverCrashes) {
    const std::vector<float> floats = {1.0f, 2.0f, 3.0f};
    write_safetensors(path_,
                      {{"b", {3, 1}, std::span<const float>(floats)},
                       {"c", {2}, std::span<const float>(floats).first(2)}},
                      {{"step", "7"}});
    const std::string whole = read_file(path_);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        ASSERT_NE(refusal(whole.substr(0, size)), "") << size;
    }
    std::mt19937 random(5);
    std::size_t refused = 0;
    constexpr std::size_t kTurns = 400;
    for (std::size_t turn = 0; turn < kTurns; ++turn) {
        std::string damaged = whole;
        for (auto flips = 1 + random() % 3; flips > 0; --flips) {
            damaged[random() % damaged.size()] = static_cast<char>(random());
        }
        put_file(path_, damaged);
        const std::string message = message_of<InputError>([&] {
            const SafetensorsFile file(path_);
            for (const std::string& name : file.names()) file.tensor(name);
        });
        if (!message.empty()) ++refused;
    }
    EXPECT_GT(refused, kTurns / 2);  // most of the file is its header
    EXPECT_LT(refused, kTurns);      // and a changed value is a value
}

}  // namespace
}  // namespace vae
