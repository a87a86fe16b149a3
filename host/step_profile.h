// Where the time of a training step goes on a device.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace vae {

// All launches of one name in a step.
struct KernelTime {
    std::string name;
    double launches = 0;      // a step
    double microseconds = 0;  // a step
};

// What a profile takes at least: one that is not measured, two as training takes them, two with one
// kernel after the other, and two kernel by kernel.
inline constexpr std::size_t kLeastProfiledSteps = 7;

struct StepProfile {
    double step_microseconds = 0;         // of a step as training takes it, nothing measured in it
    double serial_step_microseconds = 0;  // … where nothing runs beside anything, or starts early
    double event_microseconds = 0;        // between two events with nothing between them
    int steps = 0;                        // over which kernels were measured
    std::vector<KernelTime> kernels;      // the longest first
};

// A table for people, a line a kernel.
std::string to_text(const StepProfile& profile);

}  // namespace vae
