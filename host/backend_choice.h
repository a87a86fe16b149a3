// From the name of a backend on the command line to a backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "host/backend.h"

namespace vae {

struct ChosenBackend {
    std::unique_ptr<Backend> backend;
    std::string note;  // for people: "cpu on 2 threads of AMD EPYC (no GPU: …)"
};

// auto, cuda, cpu and cpu-double.
const std::vector<std::string>& backend_names();

// The backend of one of these names; auto takes the GPU if there is a usable one, else the CPU.
// Throws RunError when cuda is asked for and there is no usable GPU, InputError for any other name;
// both name the option that asked. InputError for a precision or a plan that the backend does not
// have.
ChosenBackend choose_backend(const std::string& name, const Config& config,
                             const ParameterLayout& layout,
                             const std::string& option = "--backend");

// The configuration with what a backend of that name has: train.precision and train.plan are auto
// where the CPU is taken, and data.placement is. For those that read a run, wherever it was
// trained.
Config config_for(const std::string& name, Config config);

}  // namespace vae
