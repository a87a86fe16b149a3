// The networks that speed is measured on, here and against other frameworks, and what trains them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "host/config.h"
#include "host/dataset.h"

namespace vae::bench {

struct Workload {
    std::string name;
    ImageShape shape;
    std::size_t examples = 0;
    std::vector<std::string> settings;  // "key=value", beside the defaults
};

// S    784-400-z20, ReLU, batch 128, grey: the default run
// I1   784-200-200-z50, tanh, batch 20, IWAE of 1 draw, binarised anew each step
// I50  the same with 50 draws
// L    3072-4096-4096-z256, ReLU, batch 8192, grey
// The decoders mirror the encoders; the likelihood is Bernoulli, the optimiser Adam.
const std::vector<Workload>& workloads();
// Throws InputError for another name.
const Workload& workload(const std::string& name);

// Further settings win over the workload's. Throws InputError for a setting that there is not.
Config config_of(const Workload& workload, const std::vector<std::string>& settings = {});

// Floating-point operations of a step's matrix products, each product's forward and the gradients
// of both operands but for that of the pixels: two for each multiplication and addition.
double step_flops(const Config& config, std::size_t pixels);

// A training split of uniformly random bytes, the same ones each time: what the pixels are does
// not matter to the time.
Splits random_images(const ImageShape& shape, std::size_t examples);

}  // namespace vae::bench
