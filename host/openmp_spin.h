// How long OpenMP's threads wait for work by spinning.
#pragma once

namespace vae {

// GNU OpenMP spins for milliseconds by default, so that on a machine with other work its threads
// starve each other at every barrier. This bounds it to some microseconds. The library reads its
// environment before main, so the program starts itself again with the bound set, unless
// OMP_WAIT_POLICY or GOMP_SPINCOUNT says what the user wants. The process keeps its number, its
// name and its arguments. Call first in main.
void bound_openmp_spinning(char** argv);

}  // namespace vae
