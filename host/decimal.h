// Numbers as people write them.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

namespace vae {

// The number that `text` is as a whole, without signs or spaces before it other than '-'.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
    Number number = {};
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stopped != end) return std::nullopt;
    return number;
}

// A decimal integer; 010 is refused because it is 8 to some.
template <class Integer>
std::optional<Integer> parse_decimal(std::string_view text) {
    const std::string_view digits = text.substr(text.starts_with('-') ? 1 : 0);
    if (digits.size() > 1 && digits[0] == '0') return std::nullopt;
    return parse_number<Integer>(text);
}

}  // namespace vae
