// A learned sigma as the commands show it: `vae info` prints it, and samples spread by it, with the
// average of the parameters where there is one.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "host/checkpoint.h"
#include "host/npy.h"
#include "tests/run_program.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

class LearnedSigma : public ::testing::Test {
  protected:
    LearnedSigma() { std::filesystem::create_directory(work()); }

    std::filesystem::path work() const { return folder_ / "work"; }

    std::string good(const std::vector<std::string>& arguments) const {
        const auto result = testing::run_program(work(), arguments);
        EXPECT_EQ(result.status, 0) << result.err;
        return result.out;
    }

    std::vector<float> samples(const std::string& draw) const {
        good({"sample", "run", "--count", "4000", "--draw", draw, "--out", "x.npy"});
        return std::get<std::vector<float>>(read_npy(work() / "x.npy").values);
    }

    testing::TemporaryFolder folder_;
};

TEST_F(LearnedSigma, IsPrintedAndDrawnWith) {
    for (const std::string variance : {"shared", "optimal"}) {
        for (const std::string ema : {"0", "0.5"}) {
            SCOPED_TRACE(variance);
            SCOPED_TRACE(ema);
            good({"train", "--data", "synthetic:linear-gaussian", "--likelihood", "gaussian",
                  "--set", "model.variance=" + variance, "--set", "train.ema=" + ema, "--steps",
                  "3", "--hidden", "4", "--latent", "2", "--learning-rate", "0.3", "--out", "run"});
            const Checkpoint run = load_checkpoint(work() / "run" / "checkpoint.safetensors");
            const auto& arena = ema == "0" ? run.state.parameters : run.state.ema;
            const auto parameter = static_cast<double>(arena[run.layout().output_logvar.offset]);
            // Inside of the bounds, 0.01 and 10, they move it by less than 2 %.
            const double sigma = std::exp(parameter / 2);
            const std::string said = good({"info", "run"});
            const std::string label = "sigma of the Gaussian likelihood: ";
            const std::size_t at = said.find(label);
            ASSERT_NE(at, std::string::npos);
            const double printed = std::stod(said.substr(at + label.size()));
            EXPECT_NEAR(printed, sigma, 0.02 * sigma);
            const std::vector<float> mean = samples("mean");
            const std::vector<float> drawn = samples("sample");
            double squares = 0;
            for (std::size_t i = 0; i < mean.size(); ++i) {
                const double error = static_cast<double>(drawn[i]) - static_cast<double>(mean[i]);
                squares += error * error;
            }
            // 32 000 normals: five standard errors of their variance are 4 %.
            ASSERT_EQ(mean.size(), 32000U);
            EXPECT_NEAR(squares / 32000 / (printed * printed), 1, 0.04);
            std::filesystem::remove_all(work() / "run");
        }
    }
}

}  // namespace
}  // namespace vae
