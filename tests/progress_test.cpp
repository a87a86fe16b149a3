#include "host/progress.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "tests/error_message.h"

namespace vae {
namespace {

using testing::contains;

constexpr std::size_t kTerminal = 79;  // one column of the usual 80 stays free

Progress::Status usual_status() {
    return {.epoch = 3,
            .epochs = 10,
            .step = 1200,
            .steps = 4690,
            .totals = {.recon = 8000, .kl = 2500, .loss = 10500, .examples = 100},
            .examples_per_second = 45678,
            .seconds_left = 127};
}

class ProgressTest : public ::testing::Test {
  protected:
    std::FILE* out() const { return file_.get(); }

    std::string printed() const {
        std::fflush(out());
        std::rewind(out());
        std::string text;
        std::array<char, 256> some = {};
        for (std::size_t got = 1; got > 0;) {
            got = std::fread(some.data(), 1, some.size(), out());
            text.append(some.data(), got);
        }
        return text;
    }

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<std::FILE, Close> file_{std::tmpfile()};
};

TEST(StatusText, RateAndTimeLeftAreThereAt80Columns) {
    EXPECT_EQ(status_text(usual_status(), kTerminal),
              "epoch 3/10  -elbo 105.00  45.7 k examples/s  2 min 07 s left  recon 80.00");
    Progress::Status long_run = usual_status();
    long_run.epoch = long_run.epochs = 1000;
    long_run.totals.recon = 1234567;
    long_run.seconds_left = 359'999;
    const std::string text = status_text(long_run, kTerminal);
    EXPECT_TRUE(contains(text, "k examples/s  99 h 59 min left")) << text;
    EXPECT_LE(text.size(), kTerminal);
}

TEST(StatusText, WholeFieldsAreDroppedFromTheEnd) {
    const std::string all = status_text(usual_status(), 1000);
    EXPECT_TRUE(contains(all, "recon 80.00  kl 25.00  step 1200/4690")) << all;
    for (std::size_t columns = 0; columns <= all.size(); ++columns) {
        const std::string text = status_text(usual_status(), columns);
        EXPECT_LE(text.size(), columns);
        EXPECT_EQ(all.substr(0, text.size()), text);
        EXPECT_TRUE(text.empty() || text == all || all.substr(text.size(), 2) == "  ") << text;
    }
    EXPECT_EQ(status_text(usual_status(), 9), "");
    EXPECT_EQ(status_text(usual_status(), 10), "epoch 3/10");
}

TEST_F(ProgressTest, ATerminalsStatusLineIsTakenOffBeforeAnotherLineAndAtTheEnd) {
    const std::string status = fmt::format("\r{}\033[K", status_text(usual_status(), kTerminal));
    {
        Progress progress(out(), true);
        for (int i = 0; i < 2; ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(110));
            progress.update(usual_status());
            progress.update(usual_status());  // too soon
            if (i == 0) progress.line("a line");
        }
    }
    EXPECT_EQ(printed(), fmt::format("{0}\r\033[Ka line\n{0}\r\033[K", status));
}

TEST_F(ProgressTest, ATerminalsLineIsClearedAtTheEndEvenWithoutAStatus) {
    { Progress(out(), true).line("a line"); }
    EXPECT_EQ(printed(), "a line\n\r\033[K");
}

TEST_F(ProgressTest, OtherWorkIsShownLikeTrainingAndCutAtTheEndOfTheLine) {
    {
        Progress progress(out(), true);
        progress.update(std::string("too soon"));
        std::this_thread::sleep_for(std::chrono::milliseconds(110));
        progress.update(std::string(1000, 'x'));
        progress.line("a line");
    }
    const std::string status = "\r" + std::string(kTerminal, 'x') + "\033[K";
    EXPECT_EQ(printed(), status + "\r\033[Ka line\n\r\033[K");
}

TEST_F(ProgressTest, AFileHasPlainLines) {
    {
        Progress progress(out(), false);
        progress.line("a line");
        progress.update(usual_status());  // too soon
    }
    EXPECT_EQ(printed(), "a line\n");
}

TEST(Progress, AStreamThatCannotBeWrittenIsNoException) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> full(std::fopen("/dev/full", "w"),
                                                               std::fclose);
    ASSERT_TRUE(full);
    Progress progress(full.get(), true);
    progress.line("a line");
    EXPECT_NE(std::ferror(full.get()), 0);
}

TEST(Texts, WorkThatIsCounted) {
    EXPECT_EQ(work_text("cpu", 300, 900, "steps", 6), "cpu: 300 of 900 steps, 12 s left");
    EXPECT_EQ(work_text("cpu", 0, 900, "steps", 6), "cpu: 0 of 900 steps");
    EXPECT_EQ(work_text("cpu", 900, 900, "steps", 6), "cpu: 900 of 900 steps");
}

TEST(Texts, DurationsAndRates) {
    EXPECT_EQ(duration_text(-1), "0 s");
    EXPECT_EQ(duration_text(59.6), "1 min 00 s");
    EXPECT_EQ(duration_text(11100), "3 h 05 min");
    EXPECT_EQ(rate_text(9876), "9876");
    EXPECT_EQ(rate_text(12345), "12.3 k");
    EXPECT_EQ(rate_text(1234567), "1.23 M");
}

}  // namespace
}  // namespace vae
