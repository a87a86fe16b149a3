#include "host/config_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <toml++/toml.h>
#include <algorithm>

#include "host/decimal.h"
#include "host/error.h"
#include "host/files.h"
#include "host/settings.h"
#include "host/spelling.h"

namespace vae {

namespace {

// What to say after "unknown setting": the nearest key, by its whole name or by its last word.
std::string advice(std::string_view key) {
    const std::string_view last = key.substr(key.find_last_of('.') + 1);
    const Setting* best = nullptr;
    std::size_t least = 4;
    for (const Setting& setting : settings()) {
        const std::string_view name = setting.key;
        const std::size_t distance =
            std::min(edit_distance(key, name),
                     edit_distance(last, name.substr(name.find_last_of('.') + 1)) + 1);
        if (distance < least) {
            least = distance;
            best = &setting;
        }
    }
    if (best != nullptr) return fmt::format("did you mean {}?", best->key);
    return "`vae train --help` lists the settings";
}

// The node as it would be written in a file, on one line.
std::string as_written(const toml::node& node) {
    if (const auto* text = node.as_string()) return quote(text->get());
    if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
    if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
    if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
    if (const auto* list = node.as_array()) {
        std::vector<std::string> items;
        for (const toml::node& item : *list) items.push_back(as_written(item));
        return fmt::format("[{}]", fmt::join(items, ", "));
    }
    return node.is_table() ? "a table" : "a date or time";
}

SettingValue value_of(const toml::node& node) {
    SettingValue out{{}, as_written(node)};
    if (const auto* text = node.as_string()) out.value = text->get();
    if (const auto* flag = node.as_boolean()) out.value = flag->get();
    if (const auto* number = node.as_integer()) out.value = number->get();
    if (const auto* number = node.as_floating_point()) out.value = number->get();
    if (const auto* list = node.as_array()) {
        SettingValue::IntegerList items;
        for (const toml::node& item : *list) {
            const auto* number = item.as_integer();
            if (number == nullptr) return out;
            items.push_back(number->get());
        }
        out.value = std::move(items);
    }
    return out;
}

void read_value(const Setting& setting, const SettingValue& value, const std::string& place,
                Config& config) {
    try {
        setting.read(config, value);
    } catch (const InputError& error) {
        throw InputError(fmt::format("{}: {} {}", place, setting.key, error.what()));
    }
}

void read_table(const toml::table& table, const std::string& prefix, const std::string& origin,
                Config& config, std::set<std::string>& given) {
    for (const auto& [name, node] : table) {
        const std::string key = prefix + std::string(name.str());
        const std::string place = fmt::format("{}:{}", origin, name.source().begin.line);
        if (name.str().find('.') != std::string_view::npos) {
            throw InputError(fmt::format("{}: unknown setting {}{}; a key with a dot has no quotes",
                                         place, prefix, quote(name.str())));
        }
        const auto& all = settings();
        const bool is_section = std::any_of(all.begin(), all.end(), [&](const Setting& s) {
            return s.key.compare(0, key.size() + 1, key + '.') == 0;
        });
        const Setting* setting = find_setting(key);
        if (setting != nullptr) {
            read_value(*setting, value_of(node), place, config);
            given.insert(key);
        } else if (const auto* child = node.as_table();
                   child != nullptr && (is_section || !child->empty())) {
            read_table(*child, key + '.', origin, config, given);
        } else {
            throw InputError(fmt::format("{}: unknown setting {}; {}", place, key, advice(key)));
        }
    }
}

SettingValue plain_value(const std::string& text) {
    if (text == "true" || text == "false") return {text == "true", text};
    if (const auto integer = parse_decimal<std::int64_t>(text)) return {*integer, text};
    if (const auto real = parse_number<double>(text)) return {*real, text};
    return {{}, quote(text)};
}

std::string_view trimmed(std::string_view text) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ')) text.remove_suffix(1);
    return text;
}

// "400,200", "[400, 200]", "[]" or "none".
SettingValue list_value(const std::string& text) {
    std::string_view rest = trimmed(text);
    if (rest.starts_with('[') && rest.ends_with(']')) {
        rest = trimmed(rest.substr(1, rest.size() - 2));
        if (rest.empty()) return {SettingValue::IntegerList(), text};
    }
    if (text == "none") return {SettingValue::IntegerList(), text};
    SettingValue::IntegerList items;
    for (bool is_last = false; !is_last;) {
        const std::size_t comma = rest.find(',');
        is_last = comma == std::string_view::npos;
        const auto item = parse_decimal<std::int64_t>(trimmed(rest.substr(0, comma)));
        if (!item) return {{}, quote(text)};
        items.push_back(*item);
        if (!is_last) rest.remove_prefix(comma + 1);
    }
    return {std::move(items), text};
}

// Quotes may be left out, and are then part of nothing.
SettingValue text_value(const std::string& text) {
    const bool is_quoted = text.size() > 1 && (text[0] == '"' || text[0] == '\'');
    if (!is_quoted) return {text, quote(text)};
    try {
        const toml::table table = toml::parse("value = " + text);
        if (table.size() == 1) return value_of(*table.get("value"));
    } catch (const toml::parse_error&) {
        // Refused below.
    }
    return {{}, quote(text)};
}

// `text` as the command line gives it.
SettingValue command_line_value(const Setting& setting, const std::string& text) {
    if (setting.is_text) return text_value(text);
    return setting.is_list ? list_value(text) : plain_value(text);
}

std::string one_line(std::string_view text) {
    return std::string(text.substr(0, text.find('\n')));
}

}  // namespace

ConfigBuilder::ConfigBuilder(const Config& base) : config_(base) {
    for (const Setting& setting : settings()) given_.insert(setting.key);
}

void ConfigBuilder::read_file(const std::filesystem::path& path) {
    const std::string text = vae::read_file(path);
    read_text(text, path.string());
}

void ConfigBuilder::read_text(std::string_view toml, const std::string& origin) {
    try {
        read_table(toml::parse(toml), "", origin, config_, given_);
    } catch (const toml::parse_error& error) {
        throw InputError(fmt::format("{}:{}: {}", origin, error.source().begin.line,
                                     one_line(error.description())));
    }
}

void ConfigBuilder::set(const std::string& key, const std::string& text,
                        const std::string& origin) {
    const Setting* setting = find_setting(key);
    if (setting == nullptr) {
        throw InputError(fmt::format("{}: unknown setting {}; {}", origin, key, advice(key)));
    }
    read_value(*setting, command_line_value(*setting, text), origin, config_);
    given_.insert(key);
}

void ConfigBuilder::forget(const std::string& key) {
    given_.erase(key);
}

void ConfigBuilder::set_assignment(const std::string& assignment, const std::string& origin) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
        throw InputError(fmt::format("{} {}: want key=value", origin, assignment));
    }
    set(assignment.substr(0, equals), assignment.substr(equals + 1), origin + ' ' + assignment);
}

Config ConfigBuilder::finish() const {
    Config config = config_;
    if (given_.count("model.encoder_hidden") > 0 && given_.count("model.decoder_hidden") == 0) {
        config.model.decoder_hidden.assign(config.model.encoder_hidden.rbegin(),
                                           config.model.encoder_hidden.rend());
    }
    check_config(config);
    return config;
}

std::string to_toml(const Config& config) {
    std::string out = "# All settings of the run, defaults spelled out.\n";
    std::string section;
    for (const Setting& setting : settings()) {
        const std::size_t dot = setting.key.find('.');
        if (setting.key.substr(0, dot) != section) {
            section = setting.key.substr(0, dot);
            out += fmt::format("\n[{}]\n", section);
        }
        out += fmt::format("# {}\n{} = {}\n", setting.help, setting.key.substr(dot + 1),
                           setting.print(config));
    }
    return out;
}

Config from_toml(std::string_view toml, const std::string& origin) {
    ConfigBuilder builder;
    builder.read_text(toml, origin);
    return builder.finish();
}

}  // namespace vae
