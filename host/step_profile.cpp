#include "host/step_profile.h"

#include <fmt/format.h>

#include <string_view>

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
    const auto row = [&](std::string_view what, double microseconds) {
        text += fmt::format("{:<44} {:>9} {:>10.2f}\n", what, "", microseconds);
    };
    row("all of them", total);
    row("nothing, which is in each launch above", profile.event_microseconds);
    row("a step of one after the other", profile.serial_step_microseconds);
    row("a step as training takes it", profile.step_microseconds);
    return text;
}

}  // namespace vae
