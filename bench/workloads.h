// The networks that speed is measured on, here and against other frameworks, and what trains them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "host/backend.h"
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

// A backend that trains a workload as vae train does: chunks of steps over shuffled examples, and
// the losses of a chunk read while the next ones run.
class TrainingLoop {
  public:
    // The backend's name is one of --backend's. `splits` outlive it. Throws as choose_backend.
    TrainingLoop(const std::string& backend_name, const Config& config, const Splits& splits);

    Backend& backend() { return *backend_; }
    const std::string& note() const { return note_; }  // which backend on which device
    std::uint64_t epoch_steps() const { return epoch_steps_; }
    // So many that the wait for the last of them is a small part of their time.
    std::uint64_t many_steps() const;
    // Trains so many steps and waits for them.
    void train(std::uint64_t steps);

  private:
    // At most to the end of the epoch; returns how many.
    std::uint64_t queue_chunk(std::uint64_t most);
    void take_chunk();

    Config config_;
    std::unique_ptr<Backend> backend_;
    std::string note_;
    std::uint64_t examples_ = 0;
    std::uint64_t chunk_steps_ = 1;
    std::uint64_t epoch_steps_ = 1;
    std::uint64_t step_ = 0;
};

}  // namespace vae::bench
