// Runs the program as a user does, and keeps what it printed.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace vae::testing {

struct ProgramResult {
    int status = -1;  // of exit; 128 + the signal's number if one ended it
    std::string out;
    std::string err;
};

inline std::string text_of(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// One process of the program in `folder`, with one thread and no GPU. Its standard output and
// standard error go to files beside the folder, or its output to `out` if that is given.
class Program {
  public:
    Program(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
            const std::string& out = "")
        : out_(out.empty() ? folder.string() + ".out" : out), err_(folder.string() + ".err") {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
        const int flags = O_WRONLY | O_CREAT | O_TRUNC;
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out_.c_str(), flags, 0600);
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err_.c_str(), flags, 0600);
        std::vector<char*> argv = {const_cast<char*>("vae")};
        for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
        argv.push_back(nullptr);
        setenv("OMP_NUM_THREADS", "1", 1);
        setenv("VAE_CUDA_MODULE", "/nowhere/libvae_cuda.so", 1);
        const int error =
            posix_spawn(&process_, VAE_PROGRAM, &actions, nullptr, argv.data(), environ);
        posix_spawn_file_actions_destroy(&actions);
        if (error != 0) throw std::runtime_error("cannot start " VAE_PROGRAM);
    }
    ~Program() = default;
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    Program(Program&&) = delete;
    Program& operator=(Program&&) = delete;

    pid_t id() const { return process_; }
    void raise(int signal) const { kill(process_, signal); }
    std::string output_so_far() const { return text_of(out_); }

    ProgramResult wait() const {
        int status = 0;
        waitpid(process_, &status, 0);
        ProgramResult result;
        result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (out_.string().rfind("/dev/", 0) != 0) result.out = text_of(out_);
        result.err = text_of(err_);
        return result;
    }

  private:
    std::filesystem::path out_;
    std::filesystem::path err_;
    pid_t process_ = 0;
};

inline ProgramResult run_program(const std::filesystem::path& folder,
                                 const std::vector<std::string>& arguments,
                                 const std::string& out = "") {
    return Program(folder, arguments, out).wait();
}

}  // namespace vae::testing
