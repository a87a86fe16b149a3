#include "host/openmp_spin.h"

#include <unistd.h>

#include <cstdlib>

namespace vae {

void bound_openmp_spinning(char** argv) {
    constexpr const char* kVariable = "GOMP_SPINCOUNT";
    constexpr const char* kTurns = "10000";
    if (std::getenv(kVariable) != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
    // Where this fails the program goes on as it is, only slower on a busy machine.
    if (setenv(kVariable, kTurns, 1) == 0) execv("/proc/self/exe", argv);
}

}  // namespace vae
