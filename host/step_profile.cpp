#include "host/step_profile.h"

#include <fmt/format.h>

namespace vae {

std::string to_text(const StepProfile& profile) {
    double total = 0;
    for (const KernelTime& kernel : profile.kernels) total += kernel.microseconds;
    std::string text =
        fmt::format("{:<44} {:>9} {:>10} {:>7}\n", "kernel", "launches", "us a step", "share");
    for (const KernelTime& kernel : profile.kernels) {
        text += fmt::format("{:<44} {:>9.4g} {:>10.2f} {:>6.1f}%\n", kernel.name, kernel.launches,
                            kernel.microseconds, 100 * kernel.microseconds / total);
    }
    text += fmt::format("{:<44} {:>9} {:>10.2f}\n", "all, one after the other", "", total);
    text += fmt::format("{:<44} {:>9} {:>10.2f}\n", "a step as training takes it", "",
                        profile.step_microseconds);
    return text;
}

}  // namespace vae
