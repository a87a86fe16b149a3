// How long OpenMP's threads wait for work by spinning.
#pragma once

namespace vae {

// GNU OpenMP spins for milliseconds by default, so that on a machine with other work its threads
// starve each other at every barrier: measured on two cores with two busy processes, training was
// three times slower than with this bound of some microseconds, and no faster on an idle machine.
// The library reads its environment before main, so the program starts itself again with the bound
// set, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT says what the user wants. Call first in main.
void bound_openmp_spinning(char** argv);

}  // namespace vae
