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

// What a profile takes at least: one that is not measured, two as training takes them, one kernel
// by kernel.
inline constexpr std::size_t kLeastProfiledSteps = 4;

struct StepProfile {
    double step_microseconds = 0;     // of a step as training takes it, nothing measured within it
    int steps = 0;                    // over which kernels were measured
    std::vector<KernelTime> kernels;  // the longest first
};

// A table for people, a line a kernel.
std::string to_text(const StepProfile& profile);

}  // namespace vae
