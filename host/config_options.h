// The settings that a command takes as options of its own, beside --config and --set.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "host/config_file.h"

namespace vae {

// --config, --set and the shortcuts for common settings, which train and compare share. Only train
// has those of the run's length.
class ConfigOptions {
  public:
    // Adds --config, --set and an option for each common setting.
    explicit ConfigOptions(CLI::App& command);
    // Adds --epochs and --steps, of which one may be given.
    void add_length();

    // The file, then --set, then the options, each winning over the ones before.
    void apply(ConfigBuilder& builder) const;

    // Whether an option, and not the file, names the setting.
    bool names(const std::string& key) const;

    // The value of --config; empty without one.
    const std::string& file() const { return file_; }

  private:
    struct Shortcut {
        std::string option;   // "--hidden"
        std::string key;      // "model.encoder_hidden"
        std::string if_bare;  // the value of the option without one; empty: it needs one
        std::string text;
        CLI::Option* handle = nullptr;
    };

    void add(const std::string& option, const std::string& key, const std::string& type,
             const std::string& help, const std::string& if_bare = "");

    CLI::App& command_;
    std::string file_;
    std::vector<std::string> assignments_;
    std::vector<std::unique_ptr<Shortcut>> shortcuts_;  // CLI11 keeps their addresses
};

// Accepts these words only; without CLI11's own list of them in the help.
CLI::Validator one_of(const std::vector<std::string>& choices);

// Adds `option`, which takes one of backend_names(). `name` holds the default.
void add_backend_option(CLI::App& command, const std::string& option, std::string& name,
                        const std::string& help);

// Accepts decimal integers from `least` to `most` only. CLI11's own conversion takes 010 for 8.
CLI::Validator whole_number(std::uint64_t least, std::uint64_t most);

// The table of all settings for the end of a help text.
std::string settings_help();

}  // namespace vae
