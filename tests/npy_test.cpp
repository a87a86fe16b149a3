#include "host/npy.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
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
using testing::TemporaryFolder;

std::string npy(const std::string& header, const std::string& data, int major = 1) {
    std::string file = "\x93NUMPY";
    file += {static_cast<char>(major), '\0', static_cast<char>(header.size() & 0xff),
             static_cast<char>(header.size() >> 8)};
    if (major > 1) file += {'\0', '\0'};
    return file + header + data;
}

std::string header(const std::string& type, const std::string& shape,
                   const std::string& fortran = "False") {
    return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape +
           ", }\n";
}

NpyArray parse(const std::string& file) {
    return parse_npy(std::span(reinterpret_cast<const std::uint8_t*>(file.data()), file.size()),
                     "some.npy");
}

std::string refusal(const std::string& file) {
    const std::string message = message_of<InputError>([&] { parse(file); });
    EXPECT_TRUE(contains(message, "some.npy")) << message;
    return message;
}

TEST(Npy, FloatsComeBackBitForBit) {
    const TemporaryFolder folder;
    const std::vector<float> values = {0.0f,   -0.0f,
                                       1e-45f, std::numeric_limits<float>::infinity(),
                                       0.1f,   std::numeric_limits<float>::quiet_NaN()};
    const std::vector<std::vector<std::size_t>> shapes = {{6}, {2, 3}, {1, 2, 3}, {3, 1, 1, 2}};
    for (const auto& shape : shapes) {
        write_npy(folder / "a.npy", values, shape);
        const NpyArray array = read_npy(folder / "a.npy");
        EXPECT_EQ(array.shape, shape);
        const auto& got = std::get<std::vector<float>>(array.values);
        ASSERT_EQ(got.size(), values.size());
        EXPECT_EQ(std::memcmp(got.data(), values.data(), 6 * sizeof(float)), 0);
    }
}

TEST(Npy, TheHeaderIsWhatNumpyWrites) {
    const TemporaryFolder folder;
    const std::array values = {1.0f, 2.0f};
    write_npy(folder / "a.npy", values, std::array<std::size_t, 1>{2});
    const std::string file = read_file(folder / "a.npy");
    // numpy.save of the same array, version 1.24: the same 128 + 8 bytes.
    const std::string dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
    ASSERT_EQ(file.size(), 128u + 8u);
    EXPECT_EQ(file.substr(0, 10), std::string("\x93NUMPY\x01\x00\x76\x00", 10));
    EXPECT_EQ(file.substr(10, dictionary.size()), dictionary);
    EXPECT_EQ(file.substr(10 + dictionary.size(), 117 - dictionary.size()),
              std::string(117 - dictionary.size(), ' '));
    EXPECT_EQ(file[127], '\n');
}

TEST(Npy, EmptyAndScalarArraysComeBack) {
    const TemporaryFolder folder;
    write_npy(folder / "a.npy", {}, std::array<std::size_t, 2>{0, 20});
    EXPECT_EQ(read_npy(folder / "a.npy").shape, (std::vector<std::size_t>{0, 20}));
    const std::array one = {3.0f};
    write_npy(folder / "a.npy", one, {});
    const NpyArray scalar = read_npy(folder / "a.npy");
    EXPECT_TRUE(scalar.shape.empty());
    EXPECT_EQ(std::get<std::vector<float>>(scalar.values), std::vector<float>{3.0f});
}

TEST(Npy, AShapeThatDoesNotHoldTheValuesIsRefused) {
    const TemporaryFolder folder;
    const std::array values = {1.0f, 2.0f};
    EXPECT_THROW(write_npy(folder / "a.npy", values, std::array<std::size_t, 1>{3}),
                 std::invalid_argument);
    EXPECT_FALSE(std::filesystem::exists(folder / "a.npy"));
}

TEST(Npy, ReadsEveryVersionAndSpelling) {
    for (const int major : {1, 2, 3}) {
        const NpyArray array = parse(npy(header("|u1", "(2, 3)"), "abcdef", major));
        EXPECT_EQ(array.shape, (std::vector<std::size_t>{2, 3}));
        EXPECT_EQ(std::get<std::vector<std::uint8_t>>(array.values).back(), 'f');
    }
    const std::string other = "{\"shape\":(2,) , \"fortran_order\":False,\"descr\":\"|u1\"}    ";
    EXPECT_EQ(parse(npy(other, "ab")).shape, std::vector<std::size_t>{2});
    // One dimension is in both orders at once, and numpy may say either.
    EXPECT_EQ(parse(npy(header("|u1", "(2,)", "True"), "ab")).shape, std::vector<std::size_t>{2});
}

TEST(Npy, OtherTypesAndOrdersSayHowToConvert) {
    for (const std::string type : {"<f8", ">f4", "<i8", "|b1", "<U5", "|O", "\x01\n"}) {
        const std::string message = refusal(npy(header(type, "(1,)"), "abcdefgh"));
        EXPECT_TRUE(contains(message, "astype('float32')")) << message;
        EXPECT_TRUE(contains(message, "uint8")) << message;
    }
    EXPECT_TRUE(contains(refusal(npy(header("<f8", "(1,)"), "abcdefgh")), "'<f8'"));
    EXPECT_TRUE(
        contains(refusal(npy(header("<f4", "(1, 1)", "True"), "abcd")), "ascontiguousarray"));
    EXPECT_TRUE(contains(refusal(npy("{'descr': [('a', '<f4')], 'fortran_order': False, "
                                     "'shape': (1,), }\n",
                                     "abcd")),
                         "named fields"));
}

TEST(Npy, MalformedHeadersAreRefused) {
    const std::vector<std::string> headers = {
        "",
        "{",
        "{}",
        "()",
        "{'descr': '|u1', 'fortran_order': False}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2,)} x",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2.0,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': [2]}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
        "{'descr': '|u1, 'fortran_order': False, 'shape': (2,)}",
    };
    for (const std::string& text : headers) {
        EXPECT_TRUE(contains(refusal(npy(text, "ab")), "malformed")) << text;
    }
}

TEST(Npy, SizesThatDoNotFitAreRefused) {
    EXPECT_TRUE(contains(refusal(npy(header("|u1", "(3,)"), "ab")), "too short"));
    EXPECT_TRUE(contains(refusal(npy(header("|u1", "(1,)"), "ab")), "1 bytes follow"));
    EXPECT_TRUE(contains(refusal(npy(header("<f4", "(1,)"), "abc")), "too short"));
    const std::string huge = "4294967296";  // 2^32: the product wraps to 0
    EXPECT_TRUE(
        contains(refusal(npy(header("|u1", "(" + huge + ", " + huge + ")"), "")), "too short"));
    EXPECT_TRUE(contains(refusal(npy(header("<f4", "(4611686018427387904,)"), "")), "too short"));
    EXPECT_TRUE(contains(refusal("\x89PNG\r\n\x1a\n"), "not an .npy file"));
    EXPECT_TRUE(contains(refusal(npy(header("|u1", "(1,)"), "a", 4)), "version 4.0"));
}

TEST(Npy, TruncatedAnywhereOrDamagedNeverCrashes) {
    const std::string whole = npy(header("<f4", "(2, 3)"), std::string(24, 'x'));
    for (std::size_t size = 0; size < whole.size(); ++size) refusal(whole.substr(0, size));
    std::mt19937 random(3);
    for (std::size_t turn = 0; turn < 20000; ++turn) {
        std::string damaged = whole;
        for (auto flips = 1 + random() % 3; flips > 0; --flips) {
            damaged[random() % damaged.size()] = static_cast<char>(random());
        }
        message_of<InputError>([&] { parse(damaged); });  // any other exception fails the test
    }
}

}  // namespace
}  // namespace vae
