// What trains a workload, of any backend.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "host/backend.h"
#include "host/config.h"
#include "host/dataset.h"

namespace vae::bench {

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
