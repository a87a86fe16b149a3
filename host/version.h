#pragma once

namespace vae {

// The program's version, e.g. "0.1.0".
const char* program_version();

}  // namespace vae
