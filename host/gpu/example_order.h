// The training examples of steps in their order, on the host: what begin_steps computes on the
// device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "host/backend.h"
#include "host/shuffle.h"

namespace vae::gpu {

class ExampleOrder {
  public:
    // `seed` is the training's.
    explicit ExampleOrder(std::uint64_t seed) : seed_(seed) {}

    // Of how many examples an epoch is.
    void set_examples(std::uint32_t examples);
    // Goes to the request's examples behind the first `skipped`. Its rows must stay.
    void start(const TrainRequest& request, std::size_t skipped);
    // The next `count` examples, or all that the request has left; they stay until the next call of
    // either. `peek` does not go on, and looks beyond the request to the epoch's end.
    std::span<const std::uint32_t> next(std::size_t count);
    std::span<const std::uint32_t> peek(std::size_t count);

  private:
    std::uint64_t seed_;
    std::uint32_t examples_ = 0;
    std::optional<Shuffle> shuffle_;
    std::uint32_t epoch_ = 0;               // of the shuffle
    std::span<const std::uint32_t> rows_;   // the order, unless it is an epoch's
    std::size_t at_ = 0;                    // position in rows or epoch
    std::size_t end_ = 0;                   // of the request
    std::size_t known_ = 0;                 // of what is known to come
    std::vector<std::uint32_t> positions_;  // what was asked for last of an epoch
};

}  // namespace vae::gpu
