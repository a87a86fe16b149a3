// The commands of the program. Each adds itself to the command line and says how it is run.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace vae {

struct Command {
    CLI::App* options = nullptr;
    std::function<int()> run;  // the exit status; throws InputError, RunError
};

Command add_train_command(CLI::App& program);
Command add_evaluate_command(CLI::App& program);
Command add_sample_command(CLI::App& program);
Command add_reconstruct_command(CLI::App& program);
Command add_encode_command(CLI::App& program);
Command add_decode_command(CLI::App& program);
Command add_compare_command(CLI::App& program);
Command add_variance_command(CLI::App& program);
Command add_info_command(CLI::App& program);
Command add_devices_command(CLI::App& program);

// What the commands that read a run share: RUN and --backend.
struct RunOptions {
    std::string run;
    std::string backend = "auto";

    void add_to(CLI::App& command);
};

}  // namespace vae
