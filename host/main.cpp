#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "host/commands.h"
#include "host/error.h"
#include "host/spelling.h"
#include "host/version.h"

namespace {

constexpr int kFailed = 1;
constexpr int kWrongInput = 2;

// An error is one line, whatever its message holds.
int report(std::string message, int status) {
    std::replace(message.begin(), message.end(), '\n', ' ');
    std::fflush(stdout);
    fmt::print(stderr, "vae: error: {}\n", message);
    return status;
}

std::vector<vae::Command> add_commands(CLI::App& program) {
    return {vae::add_train_command(program),   vae::add_evaluate_command(program),
            vae::add_sample_command(program),  vae::add_reconstruct_command(program),
            vae::add_encode_command(program),  vae::add_decode_command(program),
            vae::add_compare_command(program), vae::add_info_command(program),
            vae::add_devices_command(program)};
}

// Throws InputError when the first argument is meant as a command and is none.
void check_command_name(const std::vector<vae::Command>& commands, int count, char** arguments) {
    if (count < 2) throw vae::InputError("which command? `vae --help` lists them");
    const std::string name = arguments[1];
    std::vector<std::string> names;
    for (const auto& command : commands) names.push_back(command.options->get_name());
    const bool is_known = std::find(names.begin(), names.end(), name) != names.end();
    if (is_known || name == "-h" || name == "--help" || name == "--version") return;
    if (name[0] == '-') {
        throw vae::InputError(fmt::format("unknown option {}; see vae --help", name));
    }
    const std::string nearest = vae::nearest_word(name, names, 3);
    throw vae::InputError(
        fmt::format("unknown command {}; {}", name,
                    nearest.empty() ? "`vae --help` lists them" : "did you mean " + nearest + "?"));
}

// What the parser did not expect, in the order of the command line.
std::string explain_extras(const CLI::App& program, const CLI::App* command) {
    std::vector<std::string> names;
    if (command != nullptr) {
        for (const CLI::Option* option : command->get_options()) {
            names.push_back(option->get_name());
        }
    }
    const std::vector<std::string> extras = program.remaining(true);
    const auto option = std::find_if(extras.begin(), extras.end(), [](const std::string& extra) {
        return extra.size() > 1 && extra[0] == '-';
    });
    if (option == extras.end()) {
        return fmt::format("argument {} was not expected", extras.empty() ? "" : extras.front());
    }
    const std::string name = option->substr(0, option->find('='));
    const std::string nearest = vae::nearest_word(name, names, 5);
    return fmt::format("unknown option {}{}", name,
                       nearest.empty() ? "" : "; did you mean " + nearest + "?");
}

int run(int count, char** arguments) {
    CLI::App program("vae trains variational autoencoders on an NVIDIA GPU or on the CPU.", "vae");
    program.set_version_flag("--version", std::string("vae ") + vae::program_version());
    program.require_subcommand(1);
    program.get_formatter()->column_width(34);
    program.footer("`vae COMMAND --help` tells more. A first run: vae train");
    const std::vector<vae::Command> commands = add_commands(program);
    check_command_name(commands, count, arguments);
    try {
        program.parse(count, arguments);
    } catch (const CLI::Success& success) {  // --help, --version
        return program.exit(success);
    } catch (const CLI::ParseError& error) {
        const std::string name = arguments[1][0] == '-' ? "" : arguments[1];
        const CLI::App* command = name.empty() ? nullptr : program.get_subcommand(name);
        const bool is_extra =
            error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
        return report(fmt::format("{}; see vae {}{}--help",
                                  is_extra ? explain_extras(program, command) : error.what(), name,
                                  name.empty() ? "" : " "),
                      kWrongInput);
    }
    for (const auto& command : commands) {
        if (!command.options->parsed()) continue;
        const int status = command.run();
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
            throw vae::RunError("standard output cannot be written; is the disk full?");
        }
        return status;
    }
    return kWrongInput;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run(count, arguments);
    } catch (const vae::InputError& error) {
        return report(error.what(), kWrongInput);
    } catch (const std::bad_alloc&) {
        return report("out of memory; try a smaller model or a smaller train.batch", kFailed);
    } catch (const std::exception& error) {
        return report(error.what(), kFailed);
    } catch (...) {
        return report("unknown failure", kFailed);
    }
}
