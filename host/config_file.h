// Settings as text: TOML files and the overrides of the command line.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>

#include "host/config.h"

namespace vae {

// Collects settings from files and from the command line; later ones win. Every error is an
// InputError that starts with the place: "config.toml:12: …" or "--set model.latent=0: …".
class ConfigBuilder {
  public:
    ConfigBuilder() = default;
    // Starts from a whole configuration, nothing of which is derived any more.
    explicit ConfigBuilder(const Config& base);

    void read_file(const std::filesystem::path& path);
    void read_text(std::string_view toml, const std::string& origin);
    // `text` is a decimal number (.5 and 1. are two), true or false, a list of integers with or
    // without brackets
    // (`none` and [] are empty), or a text with or without the quotes of TOML.
    void set(const std::string& key, const std::string& text, const std::string& origin);
    // Leaves a setting that can be derived to finish() again.
    void forget(const std::string& key);
    // "key=value", as --set takes it.
    void set_assignment(const std::string& assignment, const std::string& origin);

    // Derives what was not given (the decoder mirrors the encoder) and checks what lies between
    // settings.
    Config finish() const;

  private:
    Config config_;
    std::set<std::string> given_;
};

// Every setting with its help as a comment; reads back to the same configuration.
std::string to_toml(const Config& config);
Config from_toml(std::string_view toml, const std::string& origin);

}  // namespace vae
