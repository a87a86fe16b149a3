// What the reparameterisation's forward and backward launchers share.
#pragma once

#include <limits>

#include "kernels/check.h"
#include "kernels/reparameterize.h"

namespace vae::kernels {

inline void require_heads(const HeadsView& heads, const char* launcher) {
    require_shape(heads.examples, heads.latent, launcher);
    require(heads.samples >= 1, launcher, "samples must be at least 1");
    require(heads.stride >= heads.latent, launcher, "stride must not be less than latent");
    require(heads.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
    require(heads.logvar_min <= heads.logvar_max, launcher,
            "logvar_min must not be greater than logvar_max");
}

}  // namespace vae::kernels
