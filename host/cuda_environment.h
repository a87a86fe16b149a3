// Variables of the environment by which NVIDIA's libraries compute something else than they are
// asked for.
#pragma once

namespace vae {

// Writes a line to standard error for each variable that is set and voids what a precision says of
// the GPU's products: its name and value, what it does, and to unset it.
void warn_of_cuda_environment();

}  // namespace vae
