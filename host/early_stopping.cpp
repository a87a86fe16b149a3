#include "host/early_stopping.h"

#include <fmt/format.h>

#include "host/spelling.h"

namespace vae {

bool EarlyStopping::take(double elbo, std::uint32_t epoch, bool counts) {
    if (best_epoch == 0 || elbo > best_elbo) {
        best_elbo = elbo;
        best_epoch = epoch;
        stale_epochs = 0;
        return true;
    }
    if (counts) ++stale_epochs;
    return false;
}

std::string best_text(const EarlyStopping& state, Split split, const std::filesystem::path& best) {
    return fmt::format("best {} -elbo {:.2f} in epoch {} ({})", name_of(split), -state.best_elbo,
                       state.best_epoch, best.string());
}

std::string stopped_text(const EarlyStopping& state, Split split,
                         const std::filesystem::path& best) {
    return fmt::format("stopped early: no better {} -elbo for {}; best {:.2f} in epoch {} ({})",
                       name_of(split), counted(state.stale_epochs, "epoch"), -state.best_elbo,
                       state.best_epoch, best.string());
}

}  // namespace vae
