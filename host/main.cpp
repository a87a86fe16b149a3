#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "host/commands.h"
#include "host/error.h"
#include "host/openmp_spin.h"
#include "host/spelling.h"
#include "host/version.h"

namespace {

constexpr int kFailed = 1;
constexpr int kWrongInput = 2;

// An error is one line, whatever its message holds. That nobody may be able to read it changes
// nothing.
int report(std::string message, int status) {
    const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
    std::replace_if(message.begin(), message.end(), is_control, ' ');
    std::fflush(stdout);
    std::fputs(("vae: error: " + message + '\n').c_str(), stderr);
    return status;
}

// A standard stream that is closed is as if it were /dev/null. Otherwise the next file opened would
// take its number, and what is printed would end up in that file.
void open_closed_streams() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (fcntl(stream, F_GETFD) != -1 || errno != EBADF) continue;
        // The lowest free number, which is this one.
        const int opened = open("/dev/null", O_RDWR);
        if (opened != stream) throw vae::RunError("a standard stream is closed, and no /dev/null");
    }
}

// Throws RunError when what was printed did not get out.
void finish_output() {
    std::cout.flush();
    if (!std::cout || std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        throw vae::RunError(
            "standard output cannot be written; is the disk full, or its reader gone?");
    }
}

std::vector<vae::Command> add_commands(CLI::App& program) {
    return {vae::add_train_command(program),   vae::add_evaluate_command(program),
            vae::add_sample_command(program),  vae::add_reconstruct_command(program),
            vae::add_encode_command(program),  vae::add_decode_command(program),
            vae::add_compare_command(program), vae::add_variance_command(program),
            vae::add_info_command(program),    vae::add_devices_command(program)};
}

// Throws InputError for an empty value, of whatever option: most often it is a variable of the
// shell that is not set, and it must not count as an option that is not given.
void check_no_value_is_empty(int count, char** arguments) {
    for (int i = 1; i < count; ++i) {
        const std::string_view argument = arguments[i];
        const bool is_assigned =
            argument.starts_with("--") && argument.find('=') + 1 == argument.size();
        if (!argument.empty() && !is_assigned) continue;
        const std::string_view before = arguments[i - 1];
        const std::string name = is_assigned ? std::string(argument.substr(0, argument.size() - 1))
                                 : i > 1 && before.starts_with("-") ? std::string(before)
                                                                    : fmt::format("argument {}", i);
        throw vae::InputError(
            fmt::format("{}: the value is empty; give one or leave it out altogether", name));
    }
}

// Throws InputError when the first argument is meant as a command and is none.
void check_command_name(const std::vector<vae::Command>& commands, int count, char** arguments) {
    if (count < 2) throw vae::InputError("which command? `vae --help` lists them");
    const std::string name = arguments[1];
    std::vector<std::string> names;
    names.reserve(commands.size());
    for (const auto& command : commands) names.push_back(command.options->get_name());
    const bool is_known = std::find(names.begin(), names.end(), name) != names.end();
    if (is_known || name == "-h" || name == "--help" || name == "--version") return;
    if (name[0] == '-') {
        throw vae::InputError(fmt::format("unknown option {}; see vae --help", name));
    }
    const std::string nearest = vae::nearest_word(name, names);
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
    const std::string nearest = vae::nearest_word(name, names);
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
    check_no_value_is_empty(count, arguments);
    check_command_name(commands, count, arguments);
    try {
        program.parse(count, arguments);
    } catch (const CLI::Success& success) {  // --help, --version
        const int status = program.exit(success);
        finish_output();
        return status;
    } catch (const CLI::ParseError& error) {
        const std::string name = arguments[1][0] == '-' ? "" : arguments[1];
        const CLI::App* command = name.empty() ? nullptr : program.get_subcommand(name);
        const bool is_extra =
            error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
        const std::string what = is_extra ? explain_extras(program, command) : error.what();
        return report(
            fmt::format("{}{} vae {}{}--help", what, what.ends_with('?') ? " See" : "; see", name,
                        name.empty() ? "" : " "),
            kWrongInput);
    }
    for (const auto& command : commands) {
        if (!command.options->parsed()) continue;
        const int status = command.run();
        finish_output();
        return status;
    }
    return kWrongInput;
}

}  // namespace

int main(int count, char** arguments) {
    vae::bound_openmp_spinning(arguments);
    try {
        open_closed_streams();
        return run(count, arguments);
    } catch (const vae::InputError& error) {
        return report(error.what(), kWrongInput);
    } catch (const std::bad_alloc&) {
        return report(
            "out of memory: the data, the model and train.batch need more than there is; make one "
            "of them smaller",
            kFailed);
    } catch (const std::exception& error) {
        return report(error.what(), kFailed);
    } catch (...) {
        return report("unknown failure", kFailed);
    }
}
