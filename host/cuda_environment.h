// Variables of the environment by which NVIDIA's libraries compute something else than they are
// asked for.
#pragma once

#include <string>
#include <vector>

namespace vae {

// A line for each variable that is set and voids what a precision says of the GPU's products: its
// name and value, what it does, and to unset it.
std::vector<std::string> cuda_environment_warnings();

}  // namespace vae
