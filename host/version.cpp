#include "host/version.h"

namespace vae {

const char* program_version() {
    return VAE_VERSION;
}

}  // namespace vae
