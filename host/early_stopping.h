// Which epoch's held-out elbo is the best so far, and for how long none has been better.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "host/dataset.h"

namespace vae {

// Where a run with train.patience stands; as it begins in any other.
struct EarlyStopping {
    double best_elbo = 0;            // of the held-out split, a mean in nats
    std::uint32_t best_epoch = 0;    // from 1; 0: none yet
    std::uint32_t stale_epochs = 0;  // since then, as far as they count

    // Takes in the held-out elbo of the next epoch; true when it is the best so far. One that is
    // not counts as stale if it `counts`.
    bool take(double elbo, std::uint32_t epoch, bool counts);

    // Whether the run ends here. A patience of 0 never ends.
    bool is_over(std::uint32_t patience) const { return patience > 0 && stale_epochs >= patience; }
};

// "best test -elbo 238.80 in epoch 31 (RUN/best.safetensors)", of a run that has one.
std::string best_text(const EarlyStopping& state, Split split, const std::filesystem::path& best);

// "stopped early: no better test -elbo for 50 epochs; best 238.80 in epoch 31
// (RUN/best.safetensors)"
std::string stopped_text(const EarlyStopping& state, Split split,
                         const std::filesystem::path& best);

}  // namespace vae
