// The table of all settings, from which reading TOML, writing it, the overrides of the command
// line, the list in the help and the comparison of two configurations follow.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "host/config.h"

namespace vae {

// A value as a file or the command line gives it.
struct SettingValue {
    using IntegerList = std::vector<std::int64_t>;
    // monostate: something that no setting takes (a date, a table, a mixed list).
    std::variant<std::monostate, bool, std::int64_t, double, std::string, IntegerList> value;
    std::string as_written;  // for messages
};

struct Setting {
    std::string key;   // "model.latent"
    std::string help;  // one line, with the range or the choices
    bool is_text;      // a string: on the command line it needs no quotes
    bool is_list;      // on the command line it needs no brackets
    // Throws InputError "must be …, not …", to which the caller adds the place.
    std::function<void(Config&, const SettingValue&)> read;
    std::function<std::string(const Config&)> print;  // as a TOML value
};

// In the order in which they are written.
const std::vector<Setting>& settings();

// Null when there is none of that key.
const Setting* find_setting(std::string_view key);

// The value of one setting as TOML. Throws std::out_of_range for an unknown key.
std::string setting_text(const Config& config, std::string_view key);

// The keys whose values differ, in the table's order.
std::vector<std::string> differing_settings(const Config& a, const Config& b);

// Throws InputError when settings contradict each other.
void check_config(const Config& config);

// A TOML string in double quotes.
std::string quote(std::string_view text);

}  // namespace vae
