// The real program in a folder of its own: what it does and says, and that a bad request leaves
// nothing behind.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/error_message.h"
#include "tests/run_program.h"
#include "tests/temporary_folder.h"

namespace vae::testing {

using Arguments = std::vector<std::string>;

inline Arguments words(const std::string& line) {
    std::istringstream in(line);
    return {std::istream_iterator<std::string>(in), {}};
}

struct BadRequest {
    std::string arguments;  // separated by spaces
    int status = 2;
    std::string message;  // a part of the line
};

class CliTest : public ::testing::Test {
  protected:
    CliTest() { std::filesystem::create_directory(work()); }

    std::filesystem::path work() const { return folder_ / "work"; }

    ProgramResult vae(const std::string& arguments) const {
        return run_program(work(), words(arguments));
    }

    // The exit status of `vae COMMAND` in a shell, which can close streams and, by what it does
    // before, bound what the program may take.
    int shell(const std::string& command, const std::string& before = "true") const {
        const std::string script =
            "cd '" + work().string() + "' && " + before +
            " && exec env OMP_NUM_THREADS=1 VAE_CUDA_MODULE=/nowhere " VAE_PROGRAM " " + command;
        const int status = std::system(script.c_str());
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

    // A small run in work()/run.
    void train_small_run() const {
        const ProgramResult result =
            vae("train --data synthetic:bars --hidden 8 --latent 2 --steps 3 --out run");
        ASSERT_EQ(result.status, 0) << result.err;
        ASSERT_EQ(result.err, "");
    }

    // Every file and folder of work() with its content.
    std::map<std::string, std::string> snapshot() const {
        std::map<std::string, std::string> all;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(work())) {
            all[entry.path().string()] = entry.is_regular_file() ? text_of(entry.path()) : "";
        }
        return all;
    }

    void expect_refused(const std::vector<BadRequest>& requests) const {
        const auto before = snapshot();
        for (const BadRequest& request : requests) {
            SCOPED_TRACE("vae " + request.arguments);
            const ProgramResult result = vae(request.arguments);
            EXPECT_EQ(result.status, request.status);
            EXPECT_EQ(result.err.rfind("vae: error: ", 0), 0U) << result.err;
            EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
            EXPECT_TRUE(contains(result.err, request.message)) << result.err;
            EXPECT_EQ(snapshot(), before);
        }
    }

    TemporaryFolder folder_;
};

}  // namespace vae::testing
