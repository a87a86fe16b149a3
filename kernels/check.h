// What the launchers demand of their arguments, on the host.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace vae::kernels {

// Throws std::invalid_argument "launcher: message" unless the condition holds.
inline void require(bool condition, const char* launcher, const char* message) {
    if (!condition) throw std::invalid_argument(std::string(launcher) + ": " + message);
}

inline void require_shape(int rows, int cols, const char* launcher) {
    require(rows >= 0 && cols >= 0, launcher, "rows and cols must not be negative");
}

// Whether four elements of every array can be read or written at a time.
template <class... T>
bool aligned_to_four(const T*... pointers) {
    return ((reinterpret_cast<std::uintptr_t>(pointers) % (4 * sizeof(T)) == 0) && ...);
}

}  // namespace vae::kernels
