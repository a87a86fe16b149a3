#include "host/openmp_spin.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace vae {

void bound_openmp_spinning(char** argv) {
    constexpr const char* kVariable = "GOMP_SPINCOUNT";
    constexpr const char* kTurns = "10000";
    if (std::getenv(kVariable) != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
    // Where this fails the program goes on as it is, only slower on a busy machine.
    if (setenv(kVariable, kTurns, 1) != 0) return;
    constexpr const char* kProgram = "/proc/self/exe";
    // By its path, because the process takes its name from what is started: not "exe".
    std::error_code error;
    const std::filesystem::path program = std::filesystem::read_symlink(kProgram, error);
    if (!error) execv(program.c_str(), argv);
    execv(kProgram, argv);
}

}  // namespace vae
