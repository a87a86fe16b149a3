// The two ways a command fails. Both end as one line on standard error.
#pragma once

#include <stdexcept>
#include <string>

namespace vae {

// The request or its input is wrong (exit status 2). The message says what is wrong, where, and
// what to do; it is printed after "vae: error: ".
class InputError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Something failed while running (exit status 1): a full disk, a device out of memory, ….
class RunError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

}  // namespace vae
