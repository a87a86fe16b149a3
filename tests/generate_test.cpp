// The commands that use a trained run, as a user runs them: which examples they take, what they
// write, and what they say.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "host/npy.h"
#include "tests/data_files.h"
#include "tests/error_message.h"
#include "tests/run_program.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::ProgramResult;
using testing::put_file;
using testing::TemporaryFolder;

using Arguments = std::vector<std::string>;

constexpr std::uint32_t kSide = 4;

// An IDX file of grey images.
std::string grey_images(std::uint32_t count, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::string pixels;
    for (std::uint32_t i = 0; i < count * kSide * kSide; ++i) pixels += static_cast<char>(random());
    return testing::idx({count, kSide, kSide}, pixels);
}

class GenerateTest : public ::testing::Test {
  protected:
    GenerateTest() {
        fs::create_directory(work());
        put_mnist("grey", 40, 10);
        put_file(work() / "grey.idx", grey_images(20, 3));
    }

    fs::path work() const { return folder_ / "work"; }

    void put_mnist(const std::string& name, std::uint32_t train, std::uint32_t test) const {
        fs::create_directory(work() / name);
        put_file(work() / name / "train-images-idx3-ubyte", grey_images(train, 1));
        put_file(work() / name / "t10k-images-idx3-ubyte", grey_images(test, 2));
    }

    // In work(), or in a folder in it.
    ProgramResult vae(const Arguments& arguments, const std::string& in = ".") const {
        return testing::run_program((work() / in).lexically_normal(), arguments);
    }

    // The program's output; the test fails unless it exits with 0.
    std::string good(const Arguments& arguments, const std::string& in = ".") const {
        const ProgramResult result = vae(arguments, in);
        EXPECT_EQ(result.status, 0) << result.err;
        return result.out;
    }

    nlohmann::json evaluation(Arguments arguments) const {
        arguments.insert(arguments.begin(), {"evaluate", "run"});
        arguments.emplace_back("--json");
        return nlohmann::json::parse(good(arguments));
    }

    void expect_refused(const Arguments& arguments, int status, const std::string& part) const {
        const ProgramResult result = vae(arguments);
        EXPECT_EQ(result.status, status) << arguments.front() << ": " << result.err;
        EXPECT_TRUE(contains(result.err, part)) << result.err;
    }

    // A small run in work()/run.
    void train(const std::string& source, const Arguments& more = {}) const {
        Arguments arguments = {"train",  "--data", source,    "--out", "run",      "--hidden", "8",
                               "--seed", "5",      "--steps", "3",     "--latent", "2"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        good(arguments);
    }

    std::vector<float> values(const std::string& name) const {
        return std::get<std::vector<float>>(read_npy(work() / name).values);
    }

    TemporaryFolder folder_;
};

// The posterior means of the examples are what reconstruct decodes, to the bit: the same examples,
// binarized with the same noise, in blocks of one size.
TEST_F(GenerateTest, EncodeAndDecodeAreReconstruct) {
    train("mnist:grey", {"--binarize", "fixed"});
    good({"encode", "run", "--data", "mnist:grey", "--out", "z.npy"});
    good({"decode", "run", "--latents", "z.npy", "--out", "d.npy"});
    good({"reconstruct", "run", "--count", "7", "--out", "r.npy"});
    std::vector<float> decoded = values("d.npy");
    const std::vector<float> reconstructed = values("r.npy");
    ASSERT_EQ(decoded.size(), 10U * kSide * kSide);
    ASSERT_EQ(reconstructed.size(), 7U * kSide * kSide);
    decoded.resize(reconstructed.size());
    EXPECT_EQ(decoded, reconstructed);

    // A file of the user's own, whole, in both commands.
    good({"encode", "run", "--data", "grey.idx", "--out", "z.npy"});
    good({"decode", "run", "--latents", "z.npy", "--out", "d.npy"});
    good({"reconstruct", "run", "--data", "grey.idx", "--count", "20", "--out", "r.npy"});
    EXPECT_EQ(values("d.npy").size(), 20U * kSide * kSide);
    EXPECT_EQ(values("d.npy"), values("r.npy"));
}

TEST_F(GenerateTest, WhatIsBinarizedMustBeProbabilities) {
    train("mnist:grey", {"--binarize", "--likelihood", "gaussian"});
    std::vector<float> pixels(20 * kSide * kSide, 0.5F);
    pixels[17] = 1.5F;
    const std::size_t shape[] = {20, kSide * kSide};
    write_npy(work() / "large.npy", pixels, shape);
    const std::string message =
        "example 1, position 1: the value 1.5 is outside [0,1], which --bin";
    expect_refused({"evaluate", "run", "--data", "large.npy"}, 2, message);
    expect_refused({"encode", "run", "--data", "large.npy", "--out", "z.npy"}, 2, message);
    expect_refused({"reconstruct", "run", "--data", "large.npy", "--out", "z.npy"}, 2, message);
    EXPECT_FALSE(fs::exists(work() / "z.npy"));
}

TEST_F(GenerateTest, OtherDataHaveNoValidationSplit) {
    put_mnist("small", 5, 4);
    train("mnist:grey", {"--set", "data.validation=30"});
    EXPECT_EQ(evaluation({})["split"], "validation");
    EXPECT_EQ(evaluation({"--data", "mnist:grey"})["split"], "validation");  // the run's own
    const auto line = evaluation({"--data", "mnist:small"});
    EXPECT_EQ(line["split"], "test");
    EXPECT_EQ(line["examples"], 4);
    EXPECT_TRUE(contains(good({"reconstruct", "run", "--data", "mnist:small", "--out", "r.png"}),
                         "wrote 4 reconstructions of test examples"));
}

TEST_F(GenerateTest, AFileOfOtherDataIsTakenWhole) {
    train("mnist:grey");
    const auto line = evaluation({"--data", "grey.idx"});
    EXPECT_EQ(line["split"], "all");
    EXPECT_EQ(line["examples"], 20);
    EXPECT_TRUE(contains(good({"evaluate", "run", "--data", "grey.idx"}),
                         "all 20 examples of grey.idx, after step 3"));
    EXPECT_TRUE(contains(good({"reconstruct", "run", "--data", "grey.idx", "--out", "r.png"}),
                         "wrote 20 reconstructions of examples of grey.idx"));
    const auto tenth = evaluation({"--data", "grey.idx", "--split", "test"});
    EXPECT_EQ(tenth["split"], "test");
    EXPECT_EQ(tenth["examples"], 2);
}

TEST_F(GenerateTest, TheRunsOwnFileKeepsItsSplits) {
    train("grey.idx");
    for (const Arguments& data : {Arguments{}, {"--data", "grey.idx"}, {"--data", "./grey.idx"}}) {
        const auto line = evaluation(data);
        EXPECT_EQ(line["split"], "test");
        EXPECT_EQ(line["examples"], 2);
    }
}

TEST_F(GenerateTest, EncodeWritesBothFilesOrNone) {
    train("mnist:grey");
    const Arguments encode = {"encode", "run", "--data", "mnist:grey", "--out", "a.npy"};
    const auto with_logvar = [&encode](const std::string& file) {
        Arguments all = encode;
        all.insert(all.end(), {"--logvar", file});
        return all;
    };
    fs::create_directory(work() / "folder.npy");
    expect_refused(with_logvar("nowhere/b.npy"), 2, "cannot write nowhere/b.npy: No such file");
    expect_refused(with_logvar("folder.npy"), 2, "cannot write folder.npy: it exists and is a");
    expect_refused(with_logvar("a.npy"), 2, "--logvar a.npy: it is the same file as --out");
    expect_refused(with_logvar("run/../a.npy"), 2, "it is the same file as --out");
    EXPECT_FALSE(fs::exists(work() / "a.npy"));
    good(with_logvar("b.npy"));
    EXPECT_EQ(values("a.npy").size(), 20U);
    EXPECT_EQ(values("b.npy").size(), 20U);
    EXPECT_NE(values("a.npy"), values("b.npy"));
}

TEST_F(GenerateTest, AFullCovarianceSamplesAndEncodesItsMeans) {
    train("mnist:grey", {"--posterior", "full"});
    good({"encode", "run", "--data", "mnist:grey", "--out", "a.npy"});
    EXPECT_EQ(values("a.npy").size(), 20U);
    good({"sample", "run", "--count", "2", "--out", "s.npy"});
    good({"reconstruct", "run", "--count", "2", "--out", "r.npy"});
    expect_refused({"encode", "run", "--data", "mnist:grey", "--out", "b.npy", "--logvar", "c.npy"},
                   2, "--logvar c.npy: the posterior of run has a full covariance");
    EXPECT_FALSE(fs::exists(work() / "b.npy"));
}

TEST_F(GenerateTest, WhatIsReadIsNeverReplaced) {
    train("mnist:grey");
    good({"encode", "run", "--data", "grey.idx", "--out", "z.npy"});
    fs::copy(work() / "grey.idx", work() / "x.npy");  // told by its content
    fs::copy(work() / "run" / "checkpoint.safetensors", work() / "run.npy");
    fs::create_symlink("x.npy", work() / "link.npy");
    fs::create_directory(work() / "faces");
    good({"reconstruct", "run", "--count", "1", "--out", "faces/a.png"});
    const auto refused = [&](const Arguments& arguments, const std::string& message) {
        const std::string x = testing::text_of(work() / "x.npy");
        const std::string z = testing::text_of(work() / "z.npy");
        expect_refused(arguments, 2, message);
        EXPECT_EQ(testing::text_of(work() / "x.npy"), x);
        EXPECT_EQ(testing::text_of(work() / "z.npy"), z);
        EXPECT_FALSE(fs::exists(work() / "faces" / "b.png"));
    };
    const std::string would_replace = "--out x.npy: it would replace x.npy, which is read";
    refused({"encode", "run", "--data", "x.npy", "--out", "x.npy"}, would_replace);
    refused({"encode", "run", "--data", "x.npy", "--out", "link.npy"}, "it would replace x.npy");
    refused({"encode", "run", "--data", "x.npy", "--out", "a.npy", "--logvar", "./x.npy"},
            "--logvar ./x.npy: it would replace x.npy, which is read");
    refused({"decode", "run", "--latents", "z.npy", "--out", "z.npy"}, "it would replace z.npy");
    refused({"reconstruct", "run", "--data", "x.npy", "--out", "x.npy"}, would_replace);
    refused({"sample", "run.npy", "--out", "run.npy"}, "it would replace run.npy");
    refused({"reconstruct", "run", "--data", "faces", "--out", "faces/b.png"},
            "--out faces/b.png: it would join the images of faces");
    refused({"compare", "--data", "x.npy", "--dump", "x.npy"}, "--dump x.npy: it would replace");
    const std::string images = "grey/train-images-idx3-ubyte";
    refused({"compare", "--data", "mnist:grey", "--dump", images}, "replace " + images);
    fs::copy(work() / "faces" / "a.png", work() / "run.png");
    fs::create_symlink("../run.png", work() / "faces" / "linked.png");
    refused({"reconstruct", "run", "--data", "faces", "--out", "faces/linked.png"},
            "it would replace");
    fs::create_symlink("faces/a.png", work() / "old.png");
    fs::create_symlink("faces/b.png", work() / "new.png");
    for (const std::string link : {"old.png", "new.png"}) {
        refused({"reconstruct", "run", "--data", "faces", "--out", link}, "it would ");
    }
    refused({"reconstruct", "run", "--data", "faces", "--out", "run.png"}, "it would replace");
    const std::string unpacked = "grey/t10k-images-idx3-ubyte";
    fs::rename(work() / unpacked, work() / "grey/t10k-images.idx3-ubyte");
    refused({"compare", "--data", "mnist:grey", "--dump", unpacked}, "replace " + unpacked);
    put_file(work() / "config.toml", "[data]\nsource = \"synthetic:bars\"\n");
    refused({"compare", "--config", "config.toml", "--dump", "config.toml"}, "it would replace");
    fs::remove_all(work() / "run");
    train("x.npy");
    refused({"reconstruct", "run", "--out", "x.npy"}, "it would replace");  // the run's own data
}

TEST_F(GenerateTest, OneIsCountedAsOne) {
    train("mnist:grey");
    put_file(work() / "one.idx", grey_images(1, 3));
    const auto one = [&](Arguments arguments, const std::string& file) {
        arguments.insert(arguments.end(), {"--out", file});
        return good(arguments);
    };
    EXPECT_TRUE(contains(one({"sample", "run", "--count", "1"}, "s.npy"), "wrote 1 sample to s"));
    EXPECT_TRUE(contains(one({"encode", "run", "--data", "one.idx"}, "z.npy"),
                         "wrote 1 posterior mean to z.npy"));
    EXPECT_TRUE(contains(one({"decode", "run", "--latents", "z.npy"}, "d.npy"),
                         "wrote 1 decoded example to d.npy"));
    EXPECT_TRUE(contains(one({"reconstruct", "run", "--count", "1"}, "r.npy"),
                         "wrote 1 reconstruction of test examples to r.npy"));
    EXPECT_TRUE(contains(one({"sample", "run", "--count", "2"}, "s.npy"), "wrote 2 samples to s"));
    EXPECT_TRUE(contains(good({"evaluate", "run", "--data", "one.idx"}), "all 1 example of one"));
}

TEST_F(GenerateTest, JsonOfAPathThatIsNoUtf8) {
    train("mnist:grey");
    fs::rename(work() / "run", work() / "r\xff");
    const auto line = nlohmann::json::parse(good({"evaluate", "r\xff", "--json"}));
    EXPECT_EQ(line["run"], "r\xef\xbf\xbd");  // U+FFFD
}

TEST_F(GenerateTest, ARelativeSourceIsFoundFromAnotherFolder) {
    fs::create_directory(work() / "else");
    for (const std::string source : {"grey.idx", "mnist:grey"}) {
        train(source);
        EXPECT_TRUE(contains(good({"evaluate", "../run"}, "else"), "examples, after step 3"));
        const Arguments resume = {"train", "--resume", "--steps", "4", "--out"};
        Arguments same = resume;
        same.insert(same.end(), {"run", "--data", source});
        good(same);
        Arguments from_else = resume;
        from_else.insert(from_else.end(), {"../run", "--steps", "5"});
        from_else.erase(from_else.begin() + 2, from_else.begin() + 4);
        good(from_else, "else");
        fs::remove_all(work() / "run");
    }
}

TEST_F(GenerateTest, EachSaysWhichBackendItTook) {
    train("mnist:grey");
    for (const Arguments& arguments : {Arguments{"sample", "run", "--out", "s.npy"},
                                       {"reconstruct", "run", "--out", "r.npy"},
                                       {"encode", "run", "--data", "mnist:grey", "--out", "z.npy"},
                                       {"decode", "run", "--latents", "z.npy", "--out", "d.npy"}}) {
        const std::string out = good(arguments);
        EXPECT_EQ(out.rfind("backend: cpu on ", 0), 0U) << out;
        EXPECT_TRUE(contains(out, "\nwrote ")) << out;
    }
}

TEST_F(GenerateTest, NumbersAreDecimal) {
    train("mnist:grey");
    const auto sample = [](const std::string& option, const std::string& value) {
        return Arguments{"sample", "run", "--out", "s.npy", option + "=" + value};
    };
    for (const char* const value : {"-1", "010", "0x10", "1.5", "+3", "", "1e3", "0", "1000001"}) {
        expect_refused(sample("--count", value), 2, "--count");
    }
    for (const char* const value : {"-1", "010", "0x10", "18446744073709551616"}) {
        expect_refused(sample("--seed", value), 2, "--seed");
    }
    EXPECT_FALSE(fs::exists(work() / "s.npy"));
    good(sample("--seed", "18446744073709551615"));
}

TEST_F(GenerateTest, MoreSamplesLeaveTheFirstOnesAsTheyAre) {
    train("mnist:grey");
    for (const std::string draw : {"mean", "sample"}) {
        const auto sample = [&](std::size_t count, const std::string& out) {
            good({"sample", "run", "--draw", draw, "--count", std::to_string(count), "--out", out});
            return values(out);
        };
        const std::vector<float> many = sample(600, "many.npy");
        ASSERT_EQ(many.size(), 600U * kSide * kSide);
        for (const std::size_t count : {1U, 3U, 64U, 257U}) {
            const std::vector<float> few = sample(count, "few.npy");
            ASSERT_EQ(few.size(), count * kSide * kSide);
            EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin())) << count;
        }
    }
}

// Every command that decodes, of every likelihood: samples are in the support, means need not be,
// and both are as often as one asks the same.
TEST_F(GenerateTest, DrawIsTheMeanOrASample) {
    struct Case {
        std::string likelihood;
        float steps;  // a sample is k/steps; 0: any number
        float most;
    };
    for (const Case& one :
         {Case{"bernoulli", 1, 1}, Case{"gaussian", 0, 100}, Case{"logistic", 255, 1},
          Case{"categorical", 255, 1}, Case{"poisson", 1, 1e6F}}) {
        SCOPED_TRACE(one.likelihood);
        train("mnist:grey", {"--likelihood", one.likelihood});
        good({"encode", "run", "--data", "mnist:grey", "--out", "z.npy"});
        for (const Arguments& command : {Arguments{"sample", "run", "--count", "5"},
                                         {"reconstruct", "run", "--count", "5"},
                                         {"decode", "run", "--latents", "z.npy"}}) {
            SCOPED_TRACE(command.front());
            const auto drawn = [&](const Arguments& more) {
                Arguments all = command;
                all.insert(all.end(), {"--out", "x.npy"});
                all.insert(all.end(), more.begin(), more.end());
                good(all);
                return values("x.npy");
            };
            const std::vector<float> mean = drawn({});
            EXPECT_EQ(drawn({"--draw", "mean"}), mean);
            const std::vector<float> sample = drawn({"--draw", "sample"});
            EXPECT_EQ(drawn({"--draw", "sample", "--seed", "5"}), sample);  // the run's
            EXPECT_NE(drawn({"--draw", "sample", "--seed", "6"}), sample);
            EXPECT_NE(sample, mean);
            ASSERT_EQ(sample.size(), mean.size());
            for (const float value : sample) {
                ASSERT_LE(std::abs(value), one.most);
                if (one.steps == 0) continue;
                ASSERT_GE(value, 0);
                ASSERT_NEAR(value * one.steps, std::round(value * one.steps), 1e-4);
            }
            if (one.steps == 0) continue;
            for (const float value : mean) ASSERT_TRUE(value >= 0 && value <= one.most) << value;
        }
        fs::remove_all(work() / "run");
    }
}

TEST_F(GenerateTest, DrawInAPicture) {
    train("mnist:grey");
    const auto picture = [&](const Arguments& more) {
        Arguments all = {"sample", "run", "--count", "9", "--out", "s.png"};
        all.insert(all.end(), more.begin(), more.end());
        good(all);
        return testing::text_of(work() / "s.png");
    };
    const std::string mean = picture({});
    const std::string sample = picture({"--draw", "sample", "--seed", "2"});
    EXPECT_EQ(mean.substr(1, 3), "PNG");
    EXPECT_EQ(picture({"--draw", "mean"}), mean);
    EXPECT_EQ(picture({"--draw", "sample", "--seed", "2"}), sample);
    EXPECT_NE(picture({"--draw", "sample", "--seed", "3"}), sample);
    EXPECT_NE(sample, picture({"--draw", "mean", "--seed", "2"}));
    for (const char* const word : {"means", "Sample", "mode", "1"}) {
        expect_refused({"sample", "run", "--out", "n.npy", "--draw", word}, 2,
                       std::string("--draw: ") + word + " not in {mean,sample}");
    }
    expect_refused({"sample", "run", "--out", "n.npy", "--draw", ""}, 2, "--draw");
    expect_refused({"encode", "run", "--data", "mnist:grey", "--out", "n.npy", "--draw", "mean"}, 2,
                   "--draw");
    EXPECT_FALSE(fs::exists(work() / "n.npy"));
}

}  // namespace
}  // namespace vae
