#include "host/data_source.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "host/error.h"
#include "host/npy.h"
#include "tests/data_files.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::idx;
using testing::message_of;
using testing::put_file;
using testing::TemporaryFolder;

constexpr auto kBernoulli = Likelihood::bernoulli;
constexpr auto kGaussian = Likelihood::gaussian;

// Sets an environment variable, or removes it, until the end of the scope.
class Environment {
  public:
    Environment(const char* name, const std::optional<std::string>& value) : name_(name) {
        if (const char* const old = std::getenv(name)) old_ = old;
        set(value);
    }
    ~Environment() { set(old_); }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;
    Environment(Environment&&) = delete;
    Environment& operator=(Environment&&) = delete;

  private:
    void set(const std::optional<std::string>& value) const {
        if (value) {
            ::setenv(name_, value->c_str(), 1);
        } else {
            ::unsetenv(name_);
        }
    }

    const char* name_;
    std::optional<std::string> old_;
};

// count bytes: 0, 1, 2, … , so that an example is known by its first one.
std::string counting(std::size_t count) {
    std::string bytes(count, '\0');
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(i);
    return bytes;
}

const ByteValues& bytes_of(const Dataset& data) {
    return std::get<ByteValues>(data.values);
}

const FloatValues& floats_of(const Dataset& data) {
    return std::get<FloatValues>(data.values);
}

Splits splits_of(const std::string& source, std::uint32_t validation = 0,
                 Likelihood likelihood = kBernoulli) {
    DataConfig data;
    data.source = source;
    data.validation = validation;
    return load_splits(data, {.likelihood = likelihood});
}

std::string refusal(const std::string& source, std::uint32_t validation = 0,
                    Likelihood likelihood = kBernoulli) {
    return message_of<InputError>([&] { splits_of(source, validation, likelihood); });
}

TEST(DataSource, FashionMnistIsWhatItIsKnownToBe) {
    const Environment no_folder("VAE_DATA", std::nullopt);
    if (!fs::exists("/usr/share/datasets/fashion-mnist")) {
        GTEST_SKIP() << "dataset-fashion-mnist is not installed";
    }
    const Splits splits = splits_of("fashion-mnist", 10000);
    const ImageShape shape{28, 28, 1};
    EXPECT_EQ(splits.train.size, 50000u);
    EXPECT_EQ(splits.validation.size, 10000u);
    EXPECT_EQ(splits.test.size, 10000u);
    EXPECT_EQ(splits.train.first_index, 0u);
    EXPECT_EQ(splits.validation.first_index, 50000u);
    EXPECT_EQ(splits.test.first_index, 60000u);
    double sum = 0;
    for (const Dataset* data : {&splits.train, &splits.validation, &splits.test}) {
        EXPECT_EQ(data->shape, shape);
        ASSERT_EQ(bytes_of(*data).size(), data->size * 784);
        if (data == &splits.test) continue;
        for (const std::uint8_t byte : bytes_of(*data)) sum += byte;
    }
    // Both numbers as measured elsewhere, with other tools, to the digits given there.
    EXPECT_NEAR(sum / 255.0 / (60000.0 * 784.0), 0.28604, 5e-6);
    EXPECT_NEAR(entropy_floor(splits.test), 189.86, 5e-3);
    DataConfig data;
    const auto warnings = data_warnings(splits, data, kBernoulli);
    ASSERT_EQ(warnings.size(), 1u);
    for (const char* const part : {"fashion-mnist", "test split", "189.86 nats", "--binarize"}) {
        EXPECT_TRUE(contains(warnings[0], part)) << warnings[0];
    }
    EXPECT_FALSE(contains(warnings[0], "\n"));
    const Dataset examples = load_examples("fashion-mnist");
    EXPECT_EQ(examples.size, 10000u);
    EXPECT_EQ(bytes_of(examples), bytes_of(splits.test));
}

TEST(DataSource, FashionMnistIsFoundThroughTheEnvironment) {
    const TemporaryFolder folder;
    const Environment variable("VAE_DATA", folder.path().string());
    const std::string message = refusal("fashion-mnist");
    EXPECT_TRUE(contains(message, "VAE_DATA is " + folder.path().string())) << message;
    EXPECT_TRUE(contains(message, "apt-get install dataset-fashion-mnist")) << message;

    fs::create_directory(folder / "fashion-mnist");
    put_file(folder / "fashion-mnist/train-images-idx3-ubyte", idx({3, 1, 1}, "abc"));
    EXPECT_TRUE(contains(refusal("fashion-mnist"), "no t10k-images-idx3-ubyte there"));
    put_file(folder / "fashion-mnist/t10k-images-idx3-ubyte", idx({1, 1, 1}, "d"));
    EXPECT_EQ(splits_of("fashion-mnist").train.size, 3u);
    put_file(folder / "train-images-idx3-ubyte", idx({2, 1, 1}, "ab"));
    put_file(folder / "t10k-images-idx3-ubyte", idx({1, 1, 1}, "d"));
    EXPECT_EQ(splits_of("fashion-mnist").train.size, 2u);
}

TEST(DataSource, MnistFolderInBothSpellings) {
    for (const char* const separator : {"-", "."}) {
        const TemporaryFolder folder;
        const std::string source = "mnist:" + folder.path().string();
        const std::string ending = separator + std::string("idx3-ubyte");
        put_file(folder / ("train-images" + ending), idx({3, 1, 2}, counting(6)));
        EXPECT_TRUE(contains(refusal(source), "no t10k-images"));
        put_file(folder / ("t10k-images" + ending), idx({1, 2, 1}, "xy"));
        const std::string message = refusal(source);
        EXPECT_TRUE(contains(message, "2x1x1")) << message;
        EXPECT_TRUE(contains(message, "1x2x1")) << message;
        put_file(folder / ("t10k-images" + ending), idx({1, 1, 2}, "xy"));
        const Splits splits = splits_of(source, 1);
        EXPECT_EQ(splits.train.size, 2u);
        EXPECT_EQ(splits.validation.size, 1u);
        EXPECT_EQ(bytes_of(splits.validation), (std::vector<std::uint8_t>{4, 5}));
        EXPECT_EQ(splits.test.first_index, 3u);
        EXPECT_EQ(load_examples(source).size, 1u);
    }
    EXPECT_TRUE(contains(refusal("mnist:/nowhere"), "/nowhere"));
    EXPECT_TRUE(contains(refusal("mnist:"), "names no folder"));
}

TEST(DataSource, TheLastTenthOfOneFileIsTheTestSplit) {
    struct Case {
        std::uint32_t examples;
        std::uint32_t validation;
        std::size_t train;
        std::size_t test;
    };
    const TemporaryFolder folder;
    const std::string path = (folder / "file").string();
    for (const Case& one : {Case{1, 0, 1, 0}, Case{2, 0, 1, 1}, Case{19, 3, 15, 1},
                            Case{20, 0, 18, 2}, Case{39, 35, 1, 3}}) {
        put_file(path, idx({one.examples, 2}, counting(2 * one.examples)));
        const Splits splits = splits_of(path, one.validation);
        EXPECT_EQ(splits.train.size, one.train);
        EXPECT_EQ(splits.validation.size, one.validation);
        EXPECT_EQ(splits.test.size, one.test);
        // Counted through, every example is where its bytes and its index say.
        std::vector<std::uint8_t> all;
        std::size_t counted = 0;
        for (const Dataset* data : {&splits.train, &splits.validation, &splits.test}) {
            EXPECT_EQ(data->first_index, counted);
            EXPECT_EQ(data->shape, (ImageShape{1, 2, 1}));
            counted += data->size;
            all.insert(all.end(), bytes_of(*data).begin(), bytes_of(*data).end());
        }
        const std::string expected = counting(2 * one.examples);
        EXPECT_EQ(all, std::vector<std::uint8_t>(expected.begin(), expected.end()));
        EXPECT_EQ(load_examples(path).size, one.examples);
        const auto too_many = static_cast<std::uint32_t>(one.train + one.validation);
        const std::string message = refusal(path, too_many);
        EXPECT_TRUE(contains(message, "leaves no training examples")) << message;
    }
}

TEST(DataSource, ReadsEveryShapeOfNpyAndIdx) {
    const TemporaryFolder folder;
    const std::string path = (folder / "file").string();
    const std::vector<std::vector<std::size_t>> shapes = {{2, 12}, {2, 3, 4}, {2, 2, 2, 3}};
    const std::vector<ImageShape> images = {{1, 12, 1}, {3, 4, 1}, {2, 2, 3}};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        write_npy(path, std::vector<float>(24, 0.5f), shapes[i]);
        const Dataset floats = load_examples(path);
        EXPECT_EQ(floats.shape, images[i]);
        EXPECT_EQ(floats_of(floats), std::vector<float>(24, 0.5f));
        put_file(path,
                 idx(std::vector<std::uint32_t>(shapes[i].begin(), shapes[i].end()), counting(24)));
        const Dataset bytes = load_examples(path);
        EXPECT_EQ(bytes.shape, images[i]);
        EXPECT_EQ(bytes_of(bytes)[23], 23);
    }
}

TEST(DataSource, BadFilesAreRefusedInOneLine) {
    struct Case {
        std::string file;
        std::string said;
    };
    const TemporaryFolder folder;
    const std::string path = (folder / "file").string();
    const std::vector<Case> cases = {
        {"", "the file is empty"},
        {"a text", "neither an IDX nor an .npy file"},
        {std::string("\0\0\x08", 3), "neither an IDX nor an .npy file"},
        {std::string("\0\0\x03\x01\0\0\0\0", 8), "neither an IDX nor an .npy file"},
        {idx({2, 2}, "abcdefgh", 0x0d), "type code is 0x0d"},
        {idx({4}, "abcd"), "a file of labels"},
        {idx({}, ""), "rank is 0"},
        {idx({1, 1, 1, 1, 1}, "a"), "rank is 5"},
        {idx({2, 2}, "").substr(0, 11), "ends within its header"},
        {idx({2, 2}, "abc"), "too short"},
        {idx({2, 2}, "abcde"), "1 bytes follow"},
        {idx({0xffffffff, 0xffffffff, 0xffffffff}, "abcd"), "too short"},
        {idx({0, 28, 28}, ""), "no examples"},
        {idx({3, 0, 28}, ""), "no pixels"},
        {idx({0xffffffff, 0xffffffff, 0}, ""), "no pixels"},
        {"\x1f\x8b\x08", "ends too early"},
        {"\x93NUMPY", "ends within its header"},
    };
    for (const Case& one : cases) {
        put_file(path, one.file);
        const std::string message = refusal(path);
        EXPECT_TRUE(contains(message, one.said)) << one.said << " / " << message;
        EXPECT_TRUE(contains(message, path)) << message;
    }
    const std::string missing = refusal((folder / "missing").string());
    EXPECT_TRUE(contains(missing, "missing")) << missing;
    EXPECT_TRUE(contains(missing, "mnist:DIR")) << missing;
    EXPECT_TRUE(contains(refusal(""), "no data ''"));
    EXPECT_TRUE(contains(refusal("fashion-mnits"), "fashion-mnits"));
    EXPECT_TRUE(contains(refusal("synthetic:bar"), "linear-gaussian and bars"));
    write_npy(path, std::vector<float>(3, 0.5f), std::array<std::size_t, 1>{3});
    EXPECT_TRUE(contains(refusal(path), "(N,H,W,C)"));
}

TEST(DataSource, ValuesOutsideTheSupportAreNamed) {
    const float infinity = std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    struct Case {
        float value;
        bool bernoulli;
        bool gaussian;
    };
    const TemporaryFolder folder;
    const std::string path = (folder / "file.npy").string();
    for (const Case& one :
         {Case{0, true, true}, Case{1, true, true}, Case{-0.0f, true, true},
          Case{-1e-6f, false, true}, Case{1.5f, false, true}, Case{255, false, true},
          Case{infinity, false, false}, Case{-infinity, false, false}, Case{nan, false, false}}) {
        std::vector<float> values(20 * 6, 0.5f);
        values[2 * 6 + 5] = one.value;
        values[3 * 6] = nan;  // only the first is named
        if (one.bernoulli) values[3 * 6] = 0;
        if (one.gaussian && !one.bernoulli) values[3 * 6] = 7;
        write_npy(path, values, std::array<std::size_t, 3>{20, 2, 3});
        for (const Likelihood likelihood : {kBernoulli, kGaussian}) {
            const bool fine = likelihood == kBernoulli ? one.bernoulli : one.gaussian;
            const std::string message = refusal(path, 0, likelihood);
            EXPECT_EQ(message.empty(), fine) << one.value << message;
            if (fine) continue;
            EXPECT_TRUE(contains(message, path + ": example 2, row 1, column 2")) << message;
        }
    }
    EXPECT_TRUE(contains(refusal(path), "not finite"));
    write_npy(path, std::array{0.5f, 0.5f, 0.5f, 1.5f}, std::array<std::size_t, 2>{1, 4});
    EXPECT_TRUE(contains(refusal(path), "example 0, position 3: the value 1.5 is outside [0,1]"));
    write_npy(path, std::array{0.5f, 0.5f, 0.5f, 1.5f}, std::array<std::size_t, 4>{1, 2, 1, 2});
    EXPECT_TRUE(contains(refusal(path), "row 1, column 0, channel 1"));
}

TEST(DataSource, WhatIsBinarizedMustLieBetweenZeroAndOne) {
    const TemporaryFolder folder;
    const std::string path = (folder / "file.npy").string();
    write_npy(path, std::array{0.5f, 1.5f}, std::array<std::size_t, 2>{2, 1});
    for (const auto binarize : {Binarize::dynamic, Binarize::fixed}) {
        DataConfig data;
        data.source = path;
        data.binarize = binarize;
        const auto load = [&] { load_splits(data, {.likelihood = kGaussian}); };
        EXPECT_TRUE(contains(message_of<InputError>(load), "[0,1], which --binarize needs"));
    }
    EXPECT_EQ(refusal(path, 0, kGaussian), "");
}

TEST(DataSource, ExamplesAreNumberedAsInTheSplits) {
    const TemporaryFolder folder;
    put_file(folder / "train-images-idx3-ubyte", idx({3, 1, 1}, "abc"));
    put_file(folder / "t10k-images-idx3-ubyte", idx({2, 1, 1}, "de"));
    const std::string mnist = "mnist:" + folder.path().string();
    EXPECT_EQ(load_examples(mnist).first_index, 3u);
    EXPECT_EQ(splits_of(mnist, 1).test.first_index, 3u);
    EXPECT_EQ(load_examples((folder / "train-images-idx3-ubyte").string()).first_index, 0u);
}

TEST(DataSource, TheAbsoluteSourceNamesTheSameData) {
    const TemporaryFolder folder;
    const std::string root = fs::canonical(folder.path()).string();
    fs::create_directory(folder / "images");
    put_file(folder / "file", "");
    EXPECT_EQ(absolute_source(root + "/images/"), absolute_source(root + "/images"));
    EXPECT_EQ(absolute_source(root + "/images/../file"), root + "/file");
    EXPECT_EQ(absolute_source("mnist:" + root + "/./images"), "mnist:" + root + "/images");
    const std::string relative = fs::relative(root).string();
    EXPECT_EQ(absolute_source(relative + "/file"), root + "/file");
    for (const char* const name : {"fashion-mnist", "synthetic:bars", "no-such-file", ""}) {
        EXPECT_EQ(absolute_source(name), name);
    }
}

TEST(DataSource, TheSystemsReasonIsNamed) {
    const TemporaryFolder folder;
    fs::create_symlink("loop", folder / "loop");
    const std::string path = (folder / "loop").string();
    const std::string reason = std::generic_category().message(ELOOP);
    EXPECT_TRUE(contains(refusal(path), "cannot read " + path + ": " + reason));
    EXPECT_TRUE(contains(refusal("mnist:" + path), reason)) << refusal("mnist:" + path);
}

TEST(DataSource, TheTestSplitOfAFileIsCheckedToo) {
    const TemporaryFolder folder;
    const std::string path = (folder / "file.npy").string();
    std::vector<float> values(20, 0.5f);
    values.back() = 2;
    write_npy(path, values, std::array<std::size_t, 2>{20, 1});
    EXPECT_TRUE(contains(refusal(path), "example 19, position 0: the value 2 "));
}

TEST(DataSource, EntropyFloorInClosedForm) {
    Dataset bytes{{1, 2, 1}, 2, std::vector<std::uint8_t>{0, 255, 51, 204}, 0};
    // H(1/5) twice in one of two examples: ln 5 − (4/5) ln 4. Double rounding: 1e-14.
    const double expected = std::log(5.0) - 0.8 * std::log(4.0);
    EXPECT_NEAR(entropy_floor(bytes), expected, 1e-14);
    const Dataset floats{{1, 2, 1}, 2, std::vector<float>{0.0f, 1.0f, 0.5f, 0.5f}, 0};
    EXPECT_NEAR(entropy_floor(floats), std::log(2.0), 1e-14);
    EXPECT_EQ(entropy_floor(Dataset{}), 0);
}

TEST(DataSource, OnlyGreyPixelsUnderABernoulliWarn) {
    const TemporaryFolder folder;
    const std::string grey = (folder / "grey").string();
    const std::string binary = (folder / "binary").string();
    put_file(grey, idx({1, 1}, "a"));  // no test split: the training split's floor
    put_file(binary, idx({2, 2}, std::string("\0\xff\xff\0", 4)));
    const auto count = [](const std::string& source, Likelihood likelihood, Binarize binarize) {
        DataConfig data;
        data.source = source;
        data.binarize = binarize;
        return data_warnings(load_splits(data, {.likelihood = likelihood}), data, likelihood)
            .size();
    };
    EXPECT_EQ(count(grey, kBernoulli, Binarize::none), 1u);
    EXPECT_EQ(count(grey, kBernoulli, Binarize::dynamic), 0u);
    EXPECT_EQ(count(grey, kBernoulli, Binarize::fixed), 0u);
    EXPECT_EQ(count(grey, kGaussian, Binarize::none), 0u);
    EXPECT_EQ(count(binary, kBernoulli, Binarize::none), 0u);
}

}  // namespace
}  // namespace vae
