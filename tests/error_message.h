// What a call throws, for tests of messages.
#pragma once

#include <string>

namespace vae::testing {

// The message of the Error that `call` throws; empty, and so never as expected, when it throws
// none. Another exception passes through and fails the test. A message of several lines is told so.
template <class Error, class Call>
std::string message_of(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        const std::string message = error.what();
        return message.find('\n') == std::string::npos ? message : "several lines: " + message;
    }
    return "";
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace vae::testing
