// The kinds of settings of the table in host/settings.cpp: how each reads a value and prints it. A
// setting of Config is found by `field(config)`.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/settings.h"

namespace vae {

inline constexpr std::int64_t kMostWidth = 1 << 20;  // of a layer, and of a batch

[[noreturn]] inline void refuse(const std::string& wanted, const std::string& written) {
    throw InputError(fmt::format("must be {}, not {}", wanted, written));
}

template <class Field>
Setting text_setting(std::string key, std::string help, Field field) {
    return {std::move(key),
            std::move(help),
            true,
            false,
            [field](Config& config, const SettingValue& value) {
                const auto* text = std::get_if<std::string>(&value.value);
                if (text == nullptr || text->empty()) refuse("a text", value.as_written);
                field(config) = *text;
            },
            [field](const Config& config) { return quote(field(config)); }};
}

template <class Choice>
using Names = std::vector<std::pair<Choice, std::string>>;

template <class Choice, class Field>
Setting choice_setting(std::string key, const std::string& help, const Names<Choice>& names,
                       Field field) {
    std::vector<std::string> words;
    for (const auto& [choice, name] : names) words.push_back(name);
    const std::string list = fmt::format("{}", fmt::join(words, ", "));
    return {std::move(key),
            fmt::format("{}: {}", help, list),
            true,
            false,
            [=](Config& config, const SettingValue& value) {
                const auto* text = std::get_if<std::string>(&value.value);
                const auto found = std::find_if(names.begin(), names.end(), [&](const auto& pair) {
                    return text != nullptr && pair.second == *text;
                });
                if (found == names.end()) refuse("one of " + list, value.as_written);
                field(config) = found->first;
            },
            [=](const Config& config) {
                const auto found = std::find_if(names.begin(), names.end(), [&](const auto& pair) {
                    return pair.first == field(config);
                });
                return quote(found == names.end() ? "" : found->second);
            }};
}

template <class Field>
Setting integer_setting(std::string key, const std::string& help, std::int64_t least,
                        std::int64_t most, Field field) {
    const bool open = most == std::numeric_limits<std::int64_t>::max();
    const std::string wanted = open ? fmt::format("an integer of at least {}", least)
                                    : fmt::format("an integer from {} to {}", least, most);
    return {std::move(key),
            fmt::format("{} ({})", help, wanted),
            false,
            false,
            [=](Config& config, const SettingValue& value) {
                const auto* number = std::get_if<std::int64_t>(&value.value);
                if (number == nullptr || *number < least || *number > most) {
                    refuse(wanted, value.as_written);
                }
                auto& target = field(config);
                target = static_cast<std::remove_reference_t<decltype(target)>>(*number);
            },
            [field](const Config& config) { return fmt::format("{}", field(config)); }};
}

inline std::string print_number(double value) {
    std::string text = fmt::format("{}", value);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

// `accepts` says which finite numbers are allowed, `wanted` says it in words.
template <class Accepts, class Field>
Setting number_setting(std::string key, const std::string& help, const std::string& wanted,
                       Accepts accepts, Field field) {
    return {std::move(key),
            fmt::format("{} ({})", help, wanted),
            false,
            false,
            [=](Config& config, const SettingValue& value) {
                const auto* integer = std::get_if<std::int64_t>(&value.value);
                const auto* real = std::get_if<double>(&value.value);
                const double number = integer != nullptr ? static_cast<double>(*integer)
                                      : real != nullptr  ? *real
                                                         : std::nan("");
                if (!std::isfinite(number) || !accepts(number)) refuse(wanted, value.as_written);
                field(config) = number;
            },
            [field](const Config& config) { return print_number(field(config)); }};
}

template <class Field>
Setting truth_setting(std::string key, const std::string& help, Field field) {
    return {std::move(key),
            help + " (true or false)",
            false,
            false,
            [field](Config& config, const SettingValue& value) {
                const auto* truth = std::get_if<bool>(&value.value);
                if (truth == nullptr) refuse("true or false", value.as_written);
                field(config) = *truth;
            },
            [field](const Config& config) { return field(config) ? "true" : "false"; }};
}

template <class Field>
Setting widths_setting(std::string key, const std::string& help, Field field) {
    const std::string wanted = fmt::format("a list of integers from 1 to {}", kMostWidth);
    return {std::move(key),
            fmt::format("{} ({})", help, wanted),
            false,
            true,
            [=](Config& config, const SettingValue& value) {
                const auto* list = std::get_if<SettingValue::IntegerList>(&value.value);
                if (list == nullptr) refuse(wanted, value.as_written);
                std::vector<std::uint32_t> widths;
                for (const std::int64_t width : *list) {
                    if (width < 1 || width > kMostWidth) refuse(wanted, value.as_written);
                    widths.push_back(static_cast<std::uint32_t>(width));
                }
                field(config) = std::move(widths);
            },
            [field](const Config& config) {
                return fmt::format("[{}]", fmt::join(field(config), ", "));
            }};
}

}  // namespace vae
